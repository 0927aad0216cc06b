use super::*;

fn report(text: &str, mode: Mode) -> Report {
    validate(&Documents::from_yaml(text.as_bytes()).unwrap(), mode)
}

fn paths(errors: &[ConfigError]) -> Vec<&str> {
    errors.iter().map(|error| error.path.as_str()).collect()
}

#[test]
fn an_empty_configuration_lacks_both_parts() {
    assert_eq!(paths(&report("version: v1alpha1\n", Mode::Container).errors), ["machine", "cluster"]);
}

#[test]
fn an_empty_text_is_no_configuration() {
    for text in ["", "---\n# nothing\n"] {
        let report = report(text, Mode::Metal);
        assert_eq!(report.errors.iter().map(|e| e.message.as_str()).collect::<Vec<_>>(), ["the text is empty"]);
    }
}

#[test]
fn a_worker_with_keys_of_authorities_is_refused_with_its_line() {
    let secret = "c2VjcmV0";
    let text = format!(
        "machine:\n  type: worker\n  token: t\n  ca:\n    crt: {secret}\n    key: {secret}\ncluster:\n  token: abcdef.0123456789abcdef\n  controlPlane:\n    endpoint: https://a:6443\n  ca:\n    crt: {secret}\n    key: {secret}\n"
    );
    let report = report(&text, Mode::Container);
    let found: Vec<_> = report.errors.iter().map(|e| (e.path.as_str(), e.line)).collect();
    assert_eq!(found, [("machine.ca.key", 6), ("cluster.ca.key", 13)]);
}

#[test]
fn metal_needs_a_disk_and_a_container_does_not() {
    let text = "machine:\n  type: worker\n  install:\n    wipe: false\n";
    assert!(paths(&report(text, Mode::Metal).errors).contains(&"machine.install.disk"));
    assert!(!paths(&report(text, Mode::Container).errors).contains(&"machine.install.disk"));
    let text = "machine:\n  type: worker\n";
    assert!(paths(&report(text, Mode::Metal).errors).contains(&"machine.install"));
    assert!(!paths(&report(text, Mode::Cloud).errors).contains(&"machine.install"));
}

#[test]
fn links_that_contradict_themselves_are_refused() {
    let text = "\
machine:
    type: worker
    network:
        interfaces:
            - interface: eth0
              deviceSelector: {driver: virtio}
            - mtu: 1500
            - interface: bond0
              bond: {mode: 802.3ad}
              bridge: {interfaces: [eth1]}
              vlans:
                  - vlanId: 5
                  - vlanId: 5
              vip: {ip: 10.0.0.1}
";
    let report = report(text, Mode::Container);
    let found = paths(&report.errors);
    for path in [
        "machine.network.interfaces[0]",
        "machine.network.interfaces[1]",
        "machine.network.interfaces[2]",
        "machine.network.interfaces[2].vip",
        "machine.network.interfaces[2].vlans[1].vlanId",
    ] {
        assert!(found.contains(&path), "{path} in {found:?}");
    }
}

#[test]
fn a_link_may_have_several_entries() {
    let text = "machine: {network: {interfaces: [{interface: eth0, mtu: 1400}, {interface: eth0, dhcp: true}, \
                {interface: b, bridge: {interfaces: [eth1]}}, {interface: b, bridge: {interfaces: [eth1]}}]}}\n";
    let report = report(text, Mode::Container);
    assert!(report.errors.iter().all(|error| !error.path.contains("interfaces")), "{:?}", report.errors);
    assert!(paths(&report.remarks).contains(&"machine.network.interfaces[1].interface"));
}

#[test]
fn networks_of_a_cluster_must_not_overlap() {
    let text = "cluster:\n  network:\n    podSubnets: [10.96.0.0/16]\n    serviceSubnets: [10.96.0.0/12]\n";
    assert!(paths(&report(text, Mode::Container).errors).contains(&"cluster.network.podSubnets"));
}

#[test]
fn strict_makes_errors_of_warnings_and_not_of_remarks() {
    let text = "persist: false\nmachine: {type: init}\ncluster: {network: {cni: {name: custom}}}\n";
    let report = report(text, Mode::Container);
    assert_eq!(paths(&report.warnings), ["cluster.network.cni.urls"]);
    let errors = report.errors.len();
    let strict = report.strict();
    assert_eq!((strict.errors.len(), strict.remarks.iter().any(|remark| remark.path == "persist")), (errors + 1, true));
}

#[test]
fn keys_of_labels_are_those_of_kubernetes() {
    let refused = |key: &str| {
        let text = format!("machine:\n  nodeLabels: {{{key:?}: value}}\n");
        report(&text, Mode::Container).errors.iter().any(|error| error.path == "machine.nodeLabels")
    };
    for key in ["a", "example.org/a", "node-role.kubernetes.io/x_y.z"] {
        assert!(!refused(key), "{key}");
    }
    for key in ["", "/a", "a/", "a/b/c", "Example.org/a", "a..b/c", "-a.b/c", "a b"] {
        assert!(refused(key), "{key}");
    }
}

#[test]
fn rules_for_the_firewall_are_checked() {
    let text = "apiVersion: v1alpha1\nkind: NetworkRuleConfig\nname: x\nportSelector:\n  ports: [80, 70-90]\n  protocol: tcp\ningress:\n  - subnet: 10.0.0.0/8\n    except: 11.0.0.0/8\n";
    assert_eq!(paths(&report(text, Mode::Container).errors), ["portSelector.ports", "ingress[0].except"]);
}

#[test]
fn names_that_become_files_cannot_lead_elsewhere() {
    let text = "machine:\n  type: worker\n  registries:\n    mirrors:\n      \"*\": {endpoints: [http://m]}\n      ghcr.io: {}\n      \
                ../x: {}\n      \"[fd00::1]:5000\": {}\n    config:\n      \"a\\nb\": {}\n      \"..\": {}\n  seccompProfiles:\n    - {name: \
                ok.json, value: {}}\n    - {name: ../up, value: {}}\n";
    let errors = report(text, Mode::Container).errors;
    let named = errors.iter().filter(|error| error.path.contains("registries") || error.path.contains("seccomp"));
    let found: Vec<_> = named.map(|error| error.path.as_str()).collect();
    let config = "machine.registries.config";
    assert_eq!(found, ["machine.registries.mirrors", config, config, "machine.seccompProfiles[1].name"]);
}

/// The paths of errors about names in a part of the machine's configuration.
fn unfit(part: &str) -> Vec<String> {
    let report = report(&format!("machine:\n  type: worker\n  {part}\n"), Mode::Container);
    let others = ["machine.token", "machine.ca", "cluster"];
    let errors = report.errors.into_iter().map(|error| error.path);
    errors.filter(|path| !others.iter().any(|other| path.starts_with(other))).collect()
}

#[test]
fn names_of_links_are_those_that_the_kernel_takes() {
    let link = |name: &str| unfit(&format!("network: {{interfaces: [{{interface: {name:?}}}]}}"));
    for name in ["eth0", "enp0s31f6", "eth0.100", "br-lan", "wlan@home", "a_link_15_bytes"] {
        assert_eq!(link(name), Vec::<String>::new(), "{name}");
    }
    for name in [
        "../x",
        "..",
        ".",
        "a/b",
        "a b",
        "eth0:1",
        "eth0\n",
        "a_link_16_bytes_",
        "\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}",
    ] {
        assert_eq!(link(name), ["machine.network.interfaces[0].interface"], "{name}");
    }
    let base = "machine.network.interfaces[0]";
    let bond = "bond: {mode: active-backup, primary: a b, interfaces: [eth0, ../x]}";
    let found = unfit(&format!("network: {{interfaces: [{{interface: b, {bond}}}]}}"));
    assert_eq!(found, [format!("{base}.bond.primary"), format!("{base}.bond.interfaces[1]")]);
    let found = unfit("network: {interfaces: [{interface: b, bridge: {interfaces: [eth0, \"\"]}}]}");
    assert_eq!(found, [format!("{base}.bridge.interfaces[1]")]);
    let selected = "deviceSelector: {busPath: \"00:*\"}, bond: {deviceSelectors: [{busPath: \"01/*\"}]}";
    assert_eq!(unfit(&format!("network: {{interfaces: [{{{selected}}}]}}")), Vec::<String>::new());
}

#[test]
fn names_of_kernel_parameters_stay_in_their_tree() {
    let named = |tree: &str, name: &str| unfit(&format!("{tree}: {{{name:?}: \"1\"}}"));
    for name in ["net.a.b", "net/a/b", "/net/a/b", "net/ipv4/conf/eth0.5/forwarding", "kernel.core_pattern"] {
        assert_eq!(named("sysctls", name), Vec::<String>::new(), "{name}");
        assert_eq!(named("sysfs", name), Vec::<String>::new(), "{name}");
    }
    for name in ["", "/", "../x", "net/../../x", "net..a", "net//a", ".net", "net.", "net/./a", "net.a\n", " net.a"] {
        assert_eq!(named("sysctls", name), ["machine.sysctls"], "{name:?}");
        assert_eq!(named("sysfs", name), ["machine.sysfs"], "{name:?}");
    }
    // drivers have names with spaces
    assert_eq!(named("sysfs", "bus/pci/drivers/Some Driver/new_id"), Vec::<String>::new());
    assert_eq!(named("sysctls", "net.a b"), ["machine.sysctls"]);
}

#[test]
fn names_of_servers_and_modules_are_plain() {
    let server = |name: &str| unfit(&format!("time: {{servers: [{name:?}]}}"));
    for name in ["time.cloudflare.com", "10.0.0.1", "fd00::1", "/dev/ptp0", "/dev/ptp_kvm", "host_a."] {
        assert_eq!(server(name), Vec::<String>::new(), "{name}");
    }
    for name in ["", "a b", "a\n", " a", "/dev/../x", "/etc/passwd", "ntp://a", "/dev/", &"a".repeat(300)] {
        assert_eq!(server(name), ["machine.time.servers[0]"], "{name:?}");
    }
    let module = |name: &str| unfit(&format!("kernel: {{modules: [{{name: {name:?}}}]}}"));
    for name in ["br_netfilter", "snd-hda-intel", "pci:v00008086d*", "nvidia"] {
        assert_eq!(module(name), Vec::<String>::new(), "{name}");
    }
    for name in ["../x", "..", "a b", "a/b", "a\n", ""] {
        assert_eq!(module(name), ["machine.kernel.modules[0].name"], "{name:?}");
    }
}

#[test]
fn names_of_documents_are_single_ones() {
    let refused = |kind: &str, rest: &str, name: &str| {
        let text = format!("apiVersion: v1alpha1\nkind: {kind}\nname: {name:?}\n{rest}\n");
        paths(&report(&text, Mode::Container).errors) == ["name"]
    };
    let kinds = [
        ("ExtensionServiceConfig", "environment: [A=b]"),
        ("KmsgLogConfig", "url: tcp://10.0.0.1:5000"),
        ("NetworkRuleConfig", "portSelector: {ports: [80], protocol: tcp}\ningress: [{subnet: 10.0.0.0/8}]"),
    ];
    for (kind, rest) in kinds {
        for name in ["nut-client", "a_b.c", "Remote1"] {
            assert!(!refused(kind, rest, name), "{kind} {name:?}");
        }
        for name in ["../x", "..", ".", "a/b", "a\nb", " a", "", &"a".repeat(256)] {
            assert!(refused(kind, rest, name), "{kind} {name:?}");
        }
        // the service of an extension has a name without spaces; the others are only titles
        assert_eq!(refused(kind, rest, "a b"), kind == "ExtensionServiceConfig", "{kind}");
    }
}

#[test]
fn a_name_that_is_refused_is_told_with_its_line_and_a_remedy() {
    let text = "machine:\n  network:\n    interfaces:\n      - interface: a/b\n";
    let report = report(text, Mode::Container);
    let error = report.errors.iter().find(|error| error.path.ends_with("].interface")).unwrap();
    assert_eq!((error.line, error.message.as_str()), (4, "\"a/b\" cannot be the name of a link"));
    assert!(error.hint.as_ref().unwrap().contains("eth0"), "{:?}", error.hint);
}

#[test]
fn a_path_has_no_way_up() {
    for path in ["/var/../etc/passwd", "/var/..", "/..", "var"] {
        let text = format!("machine: {{files: [{{path: {path}, op: create}}]}}\n");
        let error = Documents::from_yaml(text.as_bytes()).unwrap_err();
        assert_eq!(error.0[0].path, "machine.files[0].path", "{path}");
    }
    Documents::from_yaml(b"machine: {files: [{path: /var/a..b, op: create}]}\n").unwrap();
}

#[test]
fn the_number_of_errors_is_bounded() {
    let links = "            - mtu: 1500\n".repeat(50_000);
    let text = format!("machine:\n    type: worker\n    network:\n        interfaces:\n{links}");
    assert_eq!(report(&text, Mode::Container).errors.len(), MAX_ISSUES);
    let text = "---\napiVersion: v1alpha1\nkind: EventSinkConfig\nendpoint: a:1\n".repeat(5000);
    assert_eq!(Documents::from_yaml(text.as_bytes()).unwrap_err().0.len(), 100);
}

#[test]
fn links_disks_and_the_clock_of_a_container_are_its_hosts() {
    let text = "machine: {network: {interfaces: [{interface: eth0, mtu: 1400}]}, time: {servers: [ntp.example.org]}, \
                install: {disk: /dev/sda}}\n";
    let remarks = |mode| {
        let report = validate(&Documents::from_yaml(text.as_bytes()).unwrap(), mode);
        let of_host = report.remarks.iter().filter(|remark| remark.message.contains("in a container"));
        of_host.map(|remark| remark.path.clone()).collect::<Vec<_>>()
    };
    assert_eq!(remarks(Mode::Container), ["machine.network.interfaces", "machine.time", "machine.install"]);
    assert!(remarks(Mode::Metal).is_empty());
}

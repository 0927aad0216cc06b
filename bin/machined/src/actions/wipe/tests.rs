use block::disk::testing::{Change, FakeDisk, FakeDisks};
use machine::gpt::{Guid, ProtectiveEntry};
use machine::layout::{self, Layout};
use sequencer::{ActorId, ResetParameters, Sequence};
use sys::early::FakeEarlySystem;

use super::*;

#[test]
fn the_kernel_argument_names_the_disk_or_partitions() {
    assert_eq!(SystemWipe::of_argument("system"), Ok(SystemWipe::Disk));
    let labels = SystemWipe::Labels(vec![Label::Ephemeral, Label::State]);
    assert_eq!(SystemWipe::of_argument("system:EPHEMERAL,STATE"), Ok(labels));
    assert_eq!(SystemWipe::of_argument("system:state"), Err(LabelError::Unknown("state".into())));
    for bad in ["", "all", "system:", "user:STATE"] {
        assert_eq!(SystemWipe::of_argument(bad), Err(LabelError::Argument(bad.into())));
    }
    assert_eq!(SystemWipe::of_labels::<&str>(&[]), Ok(SystemWipe::Disk));
}

const GIB: u64 = 1 << 30;
const SYSTEM: &str = "/dev/sda";

/// A disk with the system, whose partitions have content.
fn system_of(layout: Layout) -> FakeDisk {
    system_at(SYSTEM, layout)
}

fn system_at(path: &str, layout: Layout) -> FakeDisk {
    let mut disk = FakeDisk::new(4 * GIB).at(path);
    let geometry = disk.disk().geometry;
    let id = || Guid::from_random([1; 16]);
    let table = layout::table(layout, geometry, 0, layout::EPHEMERAL_MINIMUM, id).unwrap();
    disk::write_table(&mut disk, &table, ProtectiveEntry::Inactive, b"").unwrap();
    for partition in &table.partitions {
        disk.write_at(partition.offset(geometry), &[7; 512]).unwrap();
    }
    disk.flush().unwrap();
    disk
}

/// Labels of the partitions that still have content.
fn kept(disks: &FakeDisks) -> Vec<String> {
    kept_at(SYSTEM, disks)
}

fn kept_at(path: &str, disks: &FakeDisks) -> Vec<String> {
    let disk = disks.disk(path).unwrap();
    let Contents::Table(table) = disk::contents(&disk).unwrap() else { return Vec::new() };
    let has_content = |partition: &&machine::gpt::Partition| {
        let mut sector = [0; 512];
        disk.read_at(partition.offset(disk.disk().geometry), &mut sector).unwrap();
        sector == [7; 512]
    };
    table.partitions.iter().filter(has_content).map(|partition| partition.name.clone()).collect()
}

fn reset(labels: &[&str], user_disks: &[&str]) -> Request {
    let strings = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
    let parameters =
        ResetParameters { labels: strings(labels), user_disks: strings(user_disks), ..ResetParameters::default() };
    Request::new(Sequence::Reset, ActorId::machine()).with(Parameters::Reset(parameters))
}

/// What a machine knows whose system disk is this one.
fn knowing(disk: Option<&str>) -> Store {
    let store = Store::new();
    know(&store, disk);
    store
}

fn know(store: &Store, disk: Option<&str>) {
    let system = SystemDisk {
        installed: disk.is_some(),
        settled: true,
        disk: disk.and_then(|disk| disk.strip_prefix("/dev/")).unwrap_or_default().into(),
        device_path: disk.unwrap_or_default().into(),
        ..SystemDisk::default()
    };
    store.put(SystemDisk::ID, system, "test").unwrap();
}

fn shared(disks: &FakeDisks) -> Arc<dyn Disks> {
    Arc::new(disks.clone())
}

async fn reset_system_of(disks: &FakeDisks, request: &Request) -> Result<(), TaskError> {
    reset_system(&shared(disks), &knowing(Some(SYSTEM)), &Wiped::new(), request).await
}

async fn reset_users_of(disks: &FakeDisks, request: &Request) -> Result<(), TaskError> {
    reset_user_disks(&shared(disks), &knowing(Some(SYSTEM)), &Wiped::new(), request).await
}

#[tokio::test]
async fn only_the_partitions_of_the_labels_are_wiped_and_boot_partitions_get_file_systems() {
    let disks = FakeDisks::default().with(system_of(Layout::Both));
    reset_system_of(&disks, &reset(&["STATE", "BOOT"], &[])).await.unwrap();
    assert_eq!(kept(&disks), ["EFI", "BIOS", "META", "EPHEMERAL"]);
    let formats = |change: &Change| matches!(change, Change::Format(..));
    let formatted: Vec<_> = disks.changes().into_iter().filter(formats).collect();
    assert_eq!(formatted, [Change::Format("/dev/sdap3".into(), EmptyFileSystem::Xfs)]);
    assert_eq!(disks.changes().last(), Some(&Change::Reread(SYSTEM.into())));
    let disks = FakeDisks::default().with(system_of(Layout::Uki));
    let absent = reset_system_of(&disks, &reset(&["BOOT"], &[])).await.unwrap_err();
    assert_eq!(
        absent.to_string(),
        "the system disk /dev/sda has no partition BOOT; it has EFI, META, STATE, EPHEMERAL"
    );
}

#[tokio::test]
async fn a_wiped_disk_has_no_table_and_a_machine_without_a_system_has_nothing_to_wipe() {
    let disks = FakeDisks::default().with(system_of(Layout::Uki)).with(FakeDisk::new(GIB).at("/dev/sdb"));
    reset_system_of(&disks, &reset(&[], &[])).await.unwrap();
    assert_eq!(disk::contents(&disks.disk(SYSTEM).unwrap()).unwrap(), Contents::Empty);
    let changes = disks.changes();
    assert!(changes.iter().all(|change| !format!("{change:?}").contains("sdb")), "{changes:?}");
    reset_system(&shared(&disks), &knowing(None), &Wiped::new(), &reset(&[], &[])).await.unwrap();
    assert_eq!(disks.changes(), changes);
}

/// The disk of an old installation was wiped instead, whenever the kernel listed it first.
#[tokio::test]
async fn the_system_disk_is_wiped_and_no_other_disk_with_an_old_installation() {
    const OLD: &str = "/dev/nvme0n1";
    let all = ["EFI", "META", "STATE", "EPHEMERAL"];
    for (system, other) in [(SYSTEM, OLD), (OLD, SYSTEM)] {
        let machine = || FakeDisks::default().with(system_of(Layout::Uki)).with(system_at(OLD, Layout::Uki));
        let store = knowing(Some(system));
        let disks = machine();
        reset_system(&shared(&disks), &store, &Wiped::new(), &reset(&["STATE"], &[])).await.unwrap();
        assert_eq!(
            (kept_at(system, &disks), kept_at(other, &disks)),
            (["EFI", "META", "EPHEMERAL"].map(Into::into).into(), all.map(Into::into).into())
        );
        let disks = machine();
        reset_system(&shared(&disks), &store, &Wiped::new(), &reset(&[], &[])).await.unwrap();
        assert_eq!((kept_at(system, &disks), kept_at(other, &disks)), (vec![], all.map(Into::into).into()));
        // By the kernel's argument, after which the other one is the system disk.
        let (disks, store) = (machine(), knowing(Some(system)));
        let kernel = FakeEarlySystem::default().with_text("/proc/cmdline", "talos.experimental.wipe=system");
        let seen = async {
            tokio::task::yield_now().await;
            know(&store, Some(other));
        };
        let disks_of_it = shared(&disks);
        let (wiped, ()) = tokio::join!(asked_by_kernel_argument(&kernel, &disks_of_it, &store), seen);
        wiped.unwrap();
        assert_eq!((kept_at(system, &disks), kept_at(other, &disks)), (vec![], all.map(Into::into).into()));
    }
}

/// STATE was wiped before it was noticed that there is no BOOT.
#[tokio::test]
async fn no_partition_is_wiped_where_one_of_them_is_absent() {
    let disks = FakeDisks::default().with(system_of(Layout::Uki));
    let absent = reset_system_of(&disks, &reset(&["STATE", "BOOT"], &[])).await.unwrap_err();
    assert!(matches!(absent.downcast_ref(), Some(WipeError::NoPartition { label: "BOOT", .. })), "{absent}");
    assert_eq!(disks.changes(), []);
}

#[tokio::test]
async fn another_disk_that_becomes_the_system_disk_by_the_wipe_is_wiped_when_asked_for() {
    let disks = FakeDisks::default().with(system_of(Layout::Uki)).with(system_at("/dev/sdb", Layout::Uki));
    let (store, request, wiped) = (knowing(Some(SYSTEM)), reset(&[], &["/dev/sdb"]), Wiped::new());
    reset_system(&shared(&disks), &store, &wiped, &request).await.unwrap();
    know(&store, Some("/dev/sdb"));
    reset_user_disks(&shared(&disks), &store, &wiped, &request).await.unwrap();
    assert_eq!((kept(&disks), kept_at("/dev/sdb", &disks)), (vec![], vec![]));
}

/// What would be found at the end, after the node has left its cluster, is found before.
#[tokio::test]
async fn a_reset_is_verified_without_a_change_and_mounts_and_logical_volumes_are_no_obstacle() {
    let disks = FakeDisks::default()
        .with(system_of(Layout::Uki).used_by("/dev/sda4 is mounted on /var"))
        .with(FakeDisk::new(GIB).at("/dev/sdb").used_by("part of dm-0"))
        .with(FakeDisk::new(GIB).at("/dev/sdc").read_only())
        .with(FakeDisk::new(GIB).at("/dev/sdd").part_of("md0"));
    let check_of = |system: Option<&'static str>, labels: &'static [&str], user_disks: &'static [&str]| {
        let targets = NodeResetTargets { disks: shared(&disks), store: knowing(system) };
        async move { targets.check(&parameters(&reset(labels, user_disks))).await }
    };
    for (labels, user_disks) in [(&[][..], &[][..]), (&["STATE", "EFI"], &["/dev/sdb"])] {
        check_of(Some(SYSTEM), labels, user_disks).await.unwrap();
    }
    check_of(None, &[], &["/dev/sdb"]).await.unwrap();
    let invalid = |refused: &ResetRefused| matches!(refused, ResetRefused::Invalid(_));
    let absent = |refused: &ResetRefused| matches!(refused, ResetRefused::Absent(_));
    let not_possible = |refused: &ResetRefused| matches!(refused, ResetRefused::NotPossible(_));
    type Kind = fn(&ResetRefused) -> bool;
    /// The system disk, labels, other disks, and the answer.
    type Refusal = (Option<&'static str>, &'static [&'static str], &'static [&'static str], Kind, &'static str);
    let cases: [Refusal; 7] = [
        (
            Some(SYSTEM),
            &[],
            &["/dev/sdx"],
            absent,
            "there is no disk /dev/sdx; `talosctl disks` lists the disks of the machine",
        ),
        (Some(SYSTEM), &[], &["/dev/sdb", SYSTEM], invalid, "/dev/sda is the system disk, not a user disk"),
        (Some(SYSTEM), &[], &["/dev/sdc"], not_possible, "/dev/sdc is read-only"),
        (
            Some(SYSTEM),
            &[],
            &["/dev/sdd"],
            not_possible,
            "/dev/sdd is part of md0, which does not end with the services of this machine",
        ),
        (
            Some(SYSTEM),
            &["STATE", "BOOT"],
            &[],
            absent,
            "the system disk /dev/sda has no partition BOOT; it has EFI, META, STATE, EPHEMERAL",
        ),
        (Some("/dev/sdb"), &["STATE"], &[], not_possible, "the system disk /dev/sdb has no partition table"),
        (
            None,
            &["STATE"],
            &[],
            not_possible,
            "no disk of this machine has the system, so there are no partitions of it to wipe",
        ),
    ];
    for (system, labels, user_disks, kind, reason) in cases {
        let refused = check_of(system, labels, user_disks).await.unwrap_err();
        assert!(kind(&refused), "{refused:?}");
        assert_eq!(refused.to_string(), reason);
    }
    assert_eq!(disks.changes(), []);
}

/// The boot waited for the STATE that it had just wiped.
#[tokio::test(start_paused = true)]
async fn the_boot_goes_on_when_discovery_has_seen_what_was_wiped() {
    let kernel = |value: &str| {
        FakeEarlySystem::default().with_text("/proc/cmdline", &format!("talos.experimental.wipe={value}"))
    };
    let wait = |value: &'static str, store: Store| async move {
        let disks = shared(&FakeDisks::default().with(system_of(Layout::Uki)));
        asked_by_kernel_argument(&kernel(value), &disks, &store).await.unwrap();
    };
    let later = Duration::from_secs(3);
    let store = knowing(Some(SYSTEM));
    let begun = tokio::time::Instant::now();
    let look = async {
        tokio::time::sleep(later).await;
        know(&store, None);
    };
    tokio::join!(wait("system", store.clone()), look);
    assert_eq!(begun.elapsed(), later);

    let store = knowing(Some(SYSTEM));
    let state = |name: &str| DiscoveredVolume {
        parent: "sda".into(),
        partition_label: "STATE".into(),
        name: name.into(),
        ..DiscoveredVolume::default()
    };
    store.put("sda3", state("xfs"), "test").unwrap();
    // That of another disk is of no matter.
    store.put("sdb3", DiscoveredVolume { parent: "sdb".into(), ..state("xfs") }, "test").unwrap();
    let begun = tokio::time::Instant::now();
    let look = async {
        tokio::time::sleep(later).await;
        store.put("sda3", state(""), "test").unwrap();
    };
    tokio::join!(wait("system:STATE,EFI", store.clone()), look);
    assert_eq!(begun.elapsed(), later);
    // A disk that is not looked at again keeps no machine from starting.
    let begun = tokio::time::Instant::now();
    wait("system", knowing(Some(SYSTEM))).await;
    assert_eq!(begun.elapsed(), SEEN);
}

#[tokio::test]
async fn nothing_is_wiped_unless_all_can_be() {
    let disks = || {
        FakeDisks::default()
            .with(system_of(Layout::Uki))
            .with(FakeDisk::new(GIB).at("/dev/sdb"))
            .with(FakeDisk::new(GIB).at("/dev/sdc").read_only())
            .with(FakeDisk::new(GIB).at("/dev/sdd").used_by("/dev/sdd1 is mounted on /var/mnt"))
    };
    for (bad, reason) in [
        ("/dev/sdc", "/dev/sdc is read-only"),
        ("/dev/sdd", "/dev/sdd is in use: /dev/sdd1 is mounted on /var/mnt"),
        ("/dev/sde", "there is no disk /dev/sde"),
        (SYSTEM, "/dev/sda is the system disk, not a user disk"),
    ] {
        let disks = disks();
        let request = reset(&[], &["/dev/sdb", bad]);
        for refused in [reset_system_of(&disks, &request).await, reset_users_of(&disks, &request).await] {
            assert_eq!(refused.unwrap_err().to_string(), reason);
        }
        assert_eq!(disks.changes(), []);
    }
    let busy = FakeDisks::default().with(system_of(Layout::Uki).used_by("/dev/sda4 is mounted on /var"));
    let refused = reset_system_of(&busy, &reset(&[], &[])).await.unwrap_err();
    assert_eq!(refused.to_string(), "/dev/sda is in use: /dev/sda4 is mounted on /var");
    let disks = disks();
    reset_users_of(&disks, &reset(&[], &["/dev/sdb"])).await.unwrap();
    assert_eq!(disks.changes().first(), Some(&Change::Discard("/dev/sdb".into())));
}

#[tokio::test]
async fn each_change_that_fails_fails_the_reset() {
    for labels in [&[][..], &["STATE", "BOOT", "EFI"]] {
        let machine = || FakeDisks::default().with(system_of(Layout::Both));
        let whole = machine();
        reset_system_of(&whole, &reset(labels, &[])).await.unwrap();
        for (number, change) in whole.changes().into_iter().enumerate() {
            let disks = machine();
            disks.fail_at(number);
            let result = reset_system_of(&disks, &reset(labels, &[])).await;
            // A disk need not be able to discard.
            let is_needed = !matches!(change, Change::Discard(_));
            assert_eq!(result.is_err(), is_needed, "{change:?}");
        }
    }
}

#[tokio::test]
async fn the_kernel_argument_wipes_what_it_names() {
    let kernel = |arguments: &str| FakeEarlySystem::default().with_text("/proc/cmdline", arguments);
    let asking = kernel("talos.experimental.wipe=system:STATE");
    assert!(is_asked(&asking) && !is_asked(&kernel("quiet")));
    let disks = FakeDisks::default().with(system_of(Layout::Uki));
    let (shared, store) = (shared(&disks), knowing(Some(SYSTEM)));
    asked_by_kernel_argument(&asking, &shared, &store).await.unwrap();
    assert_eq!(kept(&disks), ["EFI", "META", "EPHEMERAL"]);
    let error = asked_by_kernel_argument(&kernel("talos.experimental.wipe=all"), &shared, &store).await.unwrap_err();
    let expected = "talos.experimental.wipe: \"all\" must be system, or system: with labels of partitions";
    assert_eq!(error.to_string(), expected);
}

use std::time::Duration;

use super::*;

#[tokio::test]
async fn output_and_exit_status_come_back() {
    let text = Command::new("/bin/sh").args(["-c", "echo out; echo err >&2"]).run().await.unwrap();
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["err", "out"]);
    let mut child = Command::new("/bin/sh").args(["-c", "exit 7"]).spawn().unwrap();
    assert_eq!(child.wait().await.unwrap().code(), Some(7));
}

#[tokio::test]
async fn a_program_reads_its_input_to_the_end_and_without_one_there_is_nothing() {
    let input = vec![b'x'; 1 << 20];
    let count = Command::new("/usr/bin/wc").arg("-c");
    assert_eq!(count.clone().input(input.into()).run().await.unwrap().trim(), (1 << 20).to_string());
    assert_eq!(count.run().await.unwrap().trim(), "0");
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    let error = Command::new("/no/such/program").spawn().unwrap_err();
    assert!(matches!(error, ProcessError::Spawn { program, source } if program == "/no/such/program"
        && source.kind() == io::ErrorKind::NotFound));
}

#[tokio::test]
async fn stop_kills_what_ignores_sigterm() {
    let mut child = Command::new("/bin/sh").args(["-c", "trap '' TERM; while :; do sleep 1; done"]).spawn().unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let status = child.stop(Duration::from_millis(200)).await.unwrap();
    assert_eq!(status.signal(), Some(libc::SIGKILL));
}

#[tokio::test]
async fn an_unprivileged_child_has_no_capabilities() {
    let text = Command::new("/bin/cat")
        .arg("/proc/self/status")
        .user(50, 50)
        .capabilities(Capabilities::None)
        .run()
        .await
        .unwrap();
    for line in ["CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Uid:\t50\t50\t50\t50"] {
        assert!(text.contains(line), "{line} is missing in {text}");
    }
}

#[tokio::test]
async fn named_capabilities_are_dropped_and_the_rest_stays() {
    let text = Command::new("/bin/cat")
        .arg("/proc/self/status")
        .capabilities(Capabilities::Without(vec![crate::capabilities::CAP_SYS_BOOT]))
        .run()
        .await
        .unwrap();
    let bounding = text.lines().find_map(|l| l.strip_prefix("CapEff:\t")).unwrap();
    let bits = u64::from_str_radix(bounding, 16).unwrap();
    assert_eq!(bits & (1 << crate::capabilities::CAP_SYS_BOOT), 0);
    assert_ne!(bits & (1 << 21), 0, "CAP_SYS_ADMIN stays");
}

#[tokio::test]
async fn no_child_can_boot_the_machine_or_load_modules_unless_it_is_said_otherwise() {
    let text = Command::new("/bin/cat").arg("/proc/self/status").run().await.unwrap();
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd"] {
        let line = text.lines().find_map(|line| line.strip_prefix(set)?.strip_prefix(":\t")).unwrap();
        let bits = u64::from_str_radix(line, 16).unwrap();
        for withheld in crate::capabilities::WITHHELD {
            assert_eq!(bits & (1 << withheld), 0, "{set} {line} has capability {withheld}");
        }
        assert!(set == "CapInh" || bits & (1 << 21) != 0, "{set} {line}: CAP_SYS_ADMIN stays");
    }
}

#[tokio::test]
async fn the_environment_starts_empty() {
    let text = Command::new("/usr/bin/env").env("A", "1").run().await.unwrap();
    assert_eq!(text, "A=1\n");
}

#[tokio::test]
async fn a_process_without_a_descriptor_to_watch_it_is_not_left_running() {
    let mut command = std_command(std::path::Path::new("/bin/sleep"));
    command.arg("1000");
    let (child, guard) = reaper::spawn_owned(&mut command).unwrap();
    let pid = guard.pid().as_raw_nonzero().get();
    let error =
        own("sleep".into(), child, guard, None, |_| Err(io::Error::from_raw_os_error(libc::EMFILE))).unwrap_err();
    assert!(matches!(error, ProcessError::Watch { pid: of, .. } if of == pid), "{error:?}");
    assert!(!exists(pid), "it runs, or is a zombie");
}

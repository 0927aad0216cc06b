//! With clients that others wrote: `busctl` and `systemd-inhibit` (Debian: systemd), `dbus-send` (dbus-bin), `gdbus`
//! (libglib2.0-bin).

use std::sync::Arc;

use parking_lot::Mutex;
use sys::process::{Child, Command, ProcessSignal};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::*;

struct Running {
    logind: Logind,
    socket: PathBuf,
    _bus: Bus,
    _directory: tempfile::TempDir,
}

fn start() -> Running {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("dbus/system_bus_socket");
    let logind = Logind::default();
    let bus = Bus::start(&socket, &logind).unwrap();
    Running { logind, socket, _bus: bus, _directory: directory }
}

impl Running {
    fn client(&self, program: &str, args: &[&str]) -> Command {
        let address = format!("unix:path={}", self.socket.display());
        Command::new(program).args(args.iter().copied()).env("DBUS_SYSTEM_BUS_ADDRESS", address).env("PATH", "/usr/bin")
    }

    async fn run(&self, program: &str, args: &[&str]) -> String {
        let output: Arc<Mutex<Vec<u8>>> = Arc::default();
        let sink = Arc::clone(&output);
        let command = self.client(program, args).output(Arc::new(move |bytes| sink.lock().extend(bytes)));
        let mut child = command.spawn().unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(20), child.wait()).await;
        child.drain().await;
        let output = String::from_utf8_lossy(&output.lock()).into_owned();
        assert!(ended.is_ok_and(|status| status.unwrap().success()), "{program} {args:?}: {output}");
        output
    }
}

const OBJECT: [&str; 3] = ["org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager"];

async fn has(what: &str, mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap_or_else(|_| panic!("it does not come: {what}"));
}

#[tokio::test]
async fn systemds_client_reads_the_longest_delay() {
    let running = start();
    let [name, path, interface] = OBJECT;
    let args = ["--system", "get-property", name, path, interface, "InhibitDelayMaxUSec"];
    assert_eq!(running.run("/usr/bin/busctl", &args).await, "t 1200000000\n");
    let described = running.run("/usr/bin/busctl", &["--system", "introspect", name, path]).await;
    assert!(described.contains(".Inhibit") && described.contains("1200000000"), "{described}");
}

#[tokio::test]
async fn the_reference_client_gets_a_descriptor_and_errors_with_their_names() {
    let running = start();
    let call = |args: &'static [&'static str]| {
        let all =
            [&["--system", "--print-reply", "--dest=org.freedesktop.login1", "/org/freedesktop/login1"], args].concat();
        let command = running.client("/usr/bin/dbus-send", &all);
        let output: Arc<Mutex<Vec<u8>>> = Arc::default();
        let sink = Arc::clone(&output);
        async move {
            let mut child = command.output(Arc::new(move |bytes| sink.lock().extend(bytes))).spawn().unwrap();
            child.wait().await.unwrap();
            child.drain().await;
            String::from_utf8_lossy(&output.lock()).into_owned()
        }
    };
    const INHIBIT: &str = "org.freedesktop.login1.Manager.Inhibit";
    let given = call(&[INHIBIT, "string:shutdown", "string:a", "string:b", "string:delay"]).await;
    assert!(given.contains("file descriptor"), "{given}");
    // It was released with its client.
    assert_eq!(running.logind.prepare_for_shutdown(Duration::from_secs(20)).await, Ok(()));
    let late = call(&[INHIBIT, "string:shutdown", "string:a", "string:b", "string:delay"]).await;
    assert!(late.contains("Error org.freedesktop.DBus.Error.Failed: the machine ends already"), "{late}");
    let blocking = call(&[INHIBIT, "string:shutdown", "string:a", "string:b", "string:block"]).await;
    assert!(blocking.contains("org.freedesktop.DBus.Error.InvalidArgs"), "{blocking}");
    let unknown = call(&["org.freedesktop.login1.Manager.PowerOff", "boolean:false"]).await;
    assert!(unknown.contains("org.freedesktop.DBus.Error.UnknownMethod"), "{unknown}");
}

/// As the kubelet does it: a lock, the signal, and the release when pods have ended.
#[tokio::test]
async fn a_client_with_a_lock_is_told_of_the_end_and_waited_for() {
    let running = start();
    let mut holder = running
        .client(
            "/usr/bin/systemd-inhibit",
            &["--what=shutdown", "--mode=delay", "--who=pods", "/usr/bin/sleep", "1000"],
        )
        .spawn()
        .unwrap();
    let heard: Arc<Mutex<Vec<u8>>> = Arc::default();
    let sink = Arc::clone(&heard);
    let mut listener = running
        .client("/usr/bin/gdbus", &["monitor", "--system", "--dest", "org.freedesktop.login1"])
        .output(Arc::new(move |bytes| sink.lock().extend(bytes)))
        .spawn()
        .unwrap();
    let heard = || String::from_utf8_lossy(&heard.lock()).into_owned();
    has("the name is watched", || heard().contains("is owned by")).await;
    has("the lock", || format!("{:?}", running.logind).contains("locks: 1")).await;
    let error = running.logind.prepare_for_shutdown(Duration::from_millis(200)).await.unwrap_err();
    assert_eq!(error.to_string(), "the end of the machine is still delayed by pods");
    let signal = "/org/freedesktop/login1: org.freedesktop.login1.Manager.PrepareForShutdown (true,)";
    has("the signal", || heard().contains(signal)).await;
    end(&mut holder).await;
    assert_eq!(running.logind.prepare_for_shutdown(Duration::from_secs(20)).await, Ok(()));
    end(&mut listener).await;
}

async fn end(child: &mut Child) {
    child.signal(ProcessSignal::KILL).unwrap();
    child.wait().await.unwrap();
}

#[tokio::test]
async fn who_does_not_keep_to_the_protocol_is_not_talked_to_and_keeps_nobody_else_away() {
    let running = start();
    let rest = |bytes: &'static [u8]| {
        let socket = running.socket.clone();
        async move {
            let mut stream = UnixStream::connect(socket).await.unwrap();
            stream.write_all(bytes).await.unwrap();
            let mut rest = Vec::new();
            // A connection that was reset has ended as well.
            drop(tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await.unwrap());
            String::from_utf8_lossy(&rest).into_owned()
        }
    };
    assert_eq!(rest(b"GET / HTTP/1.1\r\n\r\n").await, "");
    assert_eq!(rest(b"\0BEGIN\r\n").await, "");
    let begun = b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\nl\x01\0\x01\xff\xff\xff\xff\x01\0\0\0\xff\xff\xff\xff";
    assert!(rest(begun).await.starts_with("DATA\r\nOK "));
    let [name, path, interface] = OBJECT;
    let args = ["--system", "get-property", name, path, interface, "PreparingForShutdown"];
    assert_eq!(running.run("/usr/bin/busctl", &args).await, "b false\n");
}

#[tokio::test]
async fn the_socket_is_roots_and_goes_with_the_bus() {
    let running = start();
    assert_eq!(running.socket.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let socket = running.socket.clone();
    drop(running);
    assert!(!socket.exists());
}

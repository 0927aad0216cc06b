//! Images and containers with a real containerd and a real runc. Needs root, containerd, runc and a static busybox.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use containers::pods::{Cleanup, Cri, PodNetwork, Pods as _, clean_up};
use containers::pull::{self, PulledImage};
use containers::run::{self, ContainerSpec, Ended};
use containers::testing::{Daemon, Registry, Setup, eventually, in_time, run_pod};
use containers::{Containerd, Namespace, Reference, Registries};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::oneshot;

/// Output of a container.
#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl Output {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock()).into_owned()
    }

    fn lines(&self) -> usize {
        self.text().lines().count()
    }
}

struct World {
    daemon: Daemon,
    containerd: Containerd,
    image: PulledImage,
}

impl World {
    async fn new() -> Self {
        let daemon = Daemon::start().await;
        let containerd = Containerd::new(&daemon.socket(), Namespace::System);
        let registry = Registry::start().await;
        let reference: Reference = registry.reference().parse().unwrap();
        let image = in_time("pull", pull::ensure(&containerd, &Registries::default(), &reference)).await.unwrap();
        drop(registry);
        // The registry is stopped: a present image is not pulled again.
        in_time("look up", pull::ensure(&containerd, &Registries::default(), &reference)).await.unwrap();
        Self { daemon, containerd, image }
    }

    fn spec(&self, id: &str, script: &str, output: &Output) -> ContainerSpec {
        let sink = output.clone();
        ContainerSpec {
            id: id.to_owned(),
            image: self.image.clone(),
            spec: specification(id, script),
            pipes: self.pipes(),
            output: Arc::new(move |bytes| sink.0.lock().extend_from_slice(bytes)),
            input: None,
            stop_grace: Duration::from_secs(1),
        }
    }

    fn pipes(&self) -> PathBuf {
        self.daemon.directory().join("pipes")
    }

    /// Starts a container and leaves it running.
    async fn start(&self, id: &str, script: &str) -> Running {
        let output = Output::default();
        let spec = self.spec(id, script, &output);
        let containerd = self.containerd.clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let (say, said) = oneshot::channel();
        let task = stdx::tasks::spawn("container", async move {
            let cancel = async {
                // A handle that is dropped is no request to stop.
                if stopped.await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            run::run(&containerd, &spec, cancel, move |pid| say.send(pid).unwrap_or_default())
                .await
                .map_err(|e| stdx::error_chain(&e))
        });
        match in_time("start", said).await {
            Ok(pid) => Running { output, stop, task, pid },
            Err(_) => panic!("{id} did not start: {:?}", task.join().await),
        }
    }

    /// Id, process and state of containerd's tasks.
    async fn listed(&self) -> Vec<(String, u32, String)> {
        let listed = in_time("list", self.containerd.containers()).await.unwrap();
        listed.into_iter().map(|info| (info.id, info.pid, info.status)).collect()
    }

    /// Nothing is left of containers that have ended.
    async fn is_clear(&self) {
        assert_eq!(self.listed().await, []);
        let pipes: Vec<_> = std::fs::read_dir(self.pipes()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(pipes, Vec::<PathBuf>::new());
    }
}

struct Running {
    output: Output,
    stop: oneshot::Sender<()>,
    task: stdx::tasks::Task<Result<Ended, String>>,
    pid: u32,
}

impl Running {
    async fn ended(self) -> Ended {
        in_time("end", self.task.join()).await.unwrap().unwrap()
    }
}

/// A shell in namespaces of its own, without any right.
fn specification(id: &str, script: &str) -> serde_json::Value {
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": ["/bin/busybox", "sh", "-c", script],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs", "readonly": true },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] },
        ],
        "linux": {
            "namespaces": [{ "type": "mount" }, { "type": "pid" }, { "type": "ipc" }],
            "cgroupsPath": format!("/containers-test-{}-{id}", std::process::id()),
        },
    })
}

/// Says a line every now and then, and ends with 3 when asked to end.
const TICKS: &str = "trap 'echo bye; exit 3' TERM; while :; do echo tick; busybox sleep 0.05; done";

#[tokio::test]
async fn containers_run_end_are_killed_and_outlive_their_containerd() {
    let mut world = World::new().await;
    a_container_gives_its_output_and_its_exit_code(&world).await;
    layers_are_applied_on_each_other(&world).await;
    containers_start_while_garbage_is_collected(&world).await;
    a_container_that_is_asked_to_end_ends(&world).await;
    a_container_that_says_much_while_it_ends_is_read(&world).await;
    a_container_that_does_not_listen_is_killed(&world).await;
    a_container_that_somebody_kills_has_the_code_of_the_signal(&world).await;
    a_container_outlives_its_containerd(&mut world).await;
    what_an_earlier_run_left_is_cleared_away(&world).await;
    world.daemon.end().await;
}

async fn a_container_gives_its_output_and_its_exit_code(world: &World) {
    let output = Output::default();
    let spec = world.spec("code", "echo out; echo err >&2; exit 7", &output);
    let never = std::future::pending();
    let ended = in_time("run", run::run(&world.containerd, &spec, never, |_| {})).await.unwrap();
    assert_eq!(ended, Ended::Code(7));
    let mut lines: Vec<_> = output.text().lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["err", "out"]);
    world.is_clear().await;
}

async fn layers_are_applied_on_each_other(world: &World) {
    let output = Output::default();
    let spec = world.spec("layers", "busybox ls / /emptied", &output);
    let ended = in_time("run", run::run(&world.containerd, &spec, std::future::pending(), |_| {})).await.unwrap();
    assert_eq!(ended, Ended::Code(0));
    let seen: Vec<_> = output.text().split_whitespace().map(str::to_owned).collect();
    // runc makes /dev.
    assert_eq!(seen, ["/:", "bin", "dev", "emptied", "proc", "/emptied:", "new"]);
}

/// Each run removes a container and its root, after which containerd collects garbage: in the time of the next start.
async fn containers_start_while_garbage_is_collected(world: &World) {
    for _ in 0..20 {
        let spec = world.spec("again", "exit 0", &Output::default());
        let ran = in_time("run", run::run(&world.containerd, &spec, std::future::pending(), |_| {})).await;
        assert_eq!(ran.map_err(|e| stdx::error_chain(&e)), Ok(Ended::Code(0)));
    }
}

async fn a_container_that_is_asked_to_end_ends(world: &World) {
    let running = world.start("term", TICKS).await;
    let output = running.output.clone();
    eventually("output", async || output.lines() > 0).await;
    assert_eq!(world.listed().await, [("term".to_owned(), running.pid, "RUNNING".to_owned())]);
    let Running { stop, task, .. } = running;
    stop.send(()).unwrap();
    assert_eq!(in_time("end", task.join()).await.unwrap(), Ok(Ended::Stopped));
    assert!(output.text().ends_with("bye\n"), "{}", output.text());
    world.is_clear().await;
}

/// A pipe holds 64 KiB: who writes more waits for a reader.
async fn a_container_that_says_much_while_it_ends_is_read(world: &World) {
    let script = "trap 'busybox yes | busybox head -c 400000; echo done; exit 0' TERM; echo up; \
                  while :; do busybox sleep 0.05; done";
    let running = world.start("much", script).await;
    let output = running.output.clone();
    eventually("output", async || output.lines() == 1).await;
    let Running { stop, task, .. } = running;
    stop.send(()).unwrap();
    assert_eq!(in_time("end", task.join()).await.unwrap(), Ok(Ended::Stopped));
    assert!(output.text().ends_with("done\n"), "it was killed: {} bytes", output.text().len());
    world.is_clear().await;
}

async fn a_container_that_does_not_listen_is_killed(world: &World) {
    let running = world.start("kill", "trap '' TERM; echo up; while :; do busybox sleep 1; done").await;
    let output = running.output.clone();
    eventually("output", async || output.lines() == 1).await;
    let Running { stop, task, .. } = running;
    stop.send(()).unwrap();
    assert_eq!(in_time("end", task.join()).await.unwrap(), Ok(Ended::Stopped));
    world.is_clear().await;
}

async fn a_container_that_somebody_kills_has_the_code_of_the_signal(world: &World) {
    let running = world.start("signal", TICKS).await;
    world.daemon.signal_inside(running.pid, "KILL").await;
    assert_eq!(running.ended().await, Ended::Code(137));
    world.is_clear().await;
}

async fn a_container_outlives_its_containerd(world: &mut World) {
    let running = world.start("lives", TICKS).await;
    world.daemon.kill().await;
    let before = running.output.lines();
    let output = running.output.clone();
    eventually("output without containerd", async || output.lines() > before + 2).await;
    world.daemon.restart().await;
    assert_eq!(world.listed().await, [("lives".to_owned(), running.pid, "RUNNING".to_owned())]);
    // It is waited for again: its end is seen, with its code.
    world.daemon.signal_inside(running.pid, "TERM").await;
    assert_eq!(running.ended().await, Ended::Code(3));
    world.is_clear().await;
}

/// As after a killed machined: the container continues without a waiting client.
async fn what_an_earlier_run_left_is_cleared_away(world: &World) {
    let Running { task, pid, .. } = world.start("left", TICKS).await;
    task.abort();
    in_time("abort", task.join()).await.unwrap_err();
    assert_eq!(world.listed().await, [("left".to_owned(), pid, "RUNNING".to_owned())]);
    let output = Output::default();
    let spec = world.spec("left", "echo anew", &output);
    let ended = in_time("run", run::run(&world.containerd, &spec, std::future::pending(), |_| {})).await.unwrap();
    assert_eq!((ended, output.text().as_str()), (Ended::Code(0), "anew\n"));
    world.is_clear().await;
}

#[tokio::test]
async fn a_container_reads_its_input_to_the_end() {
    let mut world = World::new().await;
    let output = Output::default();
    // More than a pipe holds.
    let input = vec![b'x'; 300_000];
    let spec = ContainerSpec { input: Some(input.into()), ..world.spec("reader", "/bin/busybox wc -c", &output) };
    let ended = in_time("run", run::run(&world.containerd, &spec, std::future::pending(), |_| {})).await.unwrap();
    assert_eq!((ended, output.text().trim()), (Ended::Code(0), "300000"));
    // One that does not read it ends all the same.
    let spec = ContainerSpec { spec: specification("reader", "exit 3"), ..spec };
    let ended = in_time("run", run::run(&world.containerd, &spec, std::future::pending(), |_| {})).await.unwrap();
    assert_eq!(ended, Ended::Code(3));
    world.is_clear().await;
    world.daemon.end().await;
}

/// A containerd with the CRI whose pods have the busybox of `registry` as their first process.
fn with_pods(registry: &Registry, directory: &std::path::Path) -> Setup {
    let config = directory.join("containerd.toml");
    let text = format!(
        "version = 2\ndisabled_plugins = [\"io.containerd.internal.v1.opt\"]\n[plugins.\"io.containerd.grpc.v1.cri\"]\n  \
         sandbox_image = \"{}\"\n  restrict_oom_score_adj = true\n  disable_apparmor = true\n",
        registry.reference()
    );
    std::fs::write(&config, text).unwrap();
    Setup { config: Some(config), etc: None }
}

#[tokio::test]
async fn pods_are_stopped_politely_and_removed() {
    let registry = Registry::start().await;
    let directory = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::with(with_pods(&registry, directory.path())).await;
    // It ends when it is asked to, and only then.
    let script = "trap 'exit 0' TERM; while true; do /bin/busybox sleep 0.1; done";
    let command = ["/bin/busybox", "sh", "-c", script];
    let id = in_time("run", run_pod(&daemon.socket(), "web", &registry.reference(), &command)).await;
    let id = id.unwrap_or_else(|error| panic!("{error}: {}", daemon.log()));
    let cri = Cri::new(&daemon.socket());
    let found = in_time("list", cri.sandboxes()).await.unwrap();
    let known: Vec<_> = found.iter().map(|pod| (&*pod.id, &*pod.namespace, &*pod.name, pod.network)).collect();
    assert_eq!(known, [(&*id, "default", "web", PodNetwork::Host)]);
    let containerd = Containerd::new(&daemon.socket(), Namespace::Kubernetes);
    let states = async || {
        let containers = in_time("list", containerd.containers()).await.unwrap();
        containers.into_iter().map(|container| container.status).collect::<Vec<_>>()
    };
    assert_eq!(states().await, ["RUNNING", "RUNNING"]);

    let begun = tokio::time::Instant::now();
    in_time("stop", clean_up(&cri, Cleanup::Stop)).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(20), "it was killed: {:?}", begun.elapsed());
    assert_eq!(states().await, ["NO TASK", "NO TASK"]);
    assert_eq!(in_time("list", cri.sandboxes()).await.unwrap(), found);

    for _ in 0..2 {
        in_time("remove", clean_up(&cri, Cleanup::Remove)).await.unwrap();
        assert_eq!(in_time("list", cri.sandboxes()).await.unwrap(), []);
    }
    assert_eq!(states().await, [""; 0]);
    // A pod that is not there is as good as stopped.
    cri.stop(&found[0], Duration::from_secs(1)).await.unwrap();
    daemon.end().await;
}

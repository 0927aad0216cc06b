use super::*;
use crate::environment::Environment;
use crate::output::Output;
use crate::session::GlobalFlags;

struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new(text: &str) -> Self {
        let bench = Self { dir: tempfile::tempdir().unwrap() };
        std::fs::write(bench.path(), text).unwrap();
        bench
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("config")
    }

    fn config(&self) -> TalosConfig {
        TalosConfig::load(&self.path()).unwrap()
    }

    fn session(&self) -> Session {
        let globals = GlobalFlags { talosconfig: Some(self.path()), ..GlobalFlags::default() };
        Session::new(globals, Environment::default(), Output::plain())
    }

    fn run(&self, command: ConfigCommand) -> Result<(), CommandError> {
        futures::executor::block_on(run(command, &self.session()))
    }
}

const TWO: &str = "context: a\ncontexts:\n  a: {endpoints: [10.5.0.2]}\n  b: {endpoints: [10.6.0.2], nodes: [x]}\n";

#[test]
fn endpoints_and_nodes_of_the_current_context_are_set_and_others_kept() {
    let bench = Bench::new(TWO);
    bench.run(ConfigCommand::Endpoint { endpoints: vec!["1.2.3.4".into(), "cp:443".into()] }).unwrap();
    bench.run(ConfigCommand::Node { nodes: vec!["10.5.0.3".into()] }).unwrap();
    let config = bench.config();
    assert_eq!(config.contexts["a"].endpoints, ["1.2.3.4", "cp:443"]);
    assert_eq!(config.contexts["a"].nodes, ["10.5.0.3"]);
    assert_eq!(config.contexts["b"].nodes, ["x"]);
    let error = bench.run(ConfigCommand::Endpoint { endpoints: vec!["a b".into()] }).unwrap_err();
    assert!(stdx::error_chain(error.error.as_ref()).contains("a b"));
    assert_eq!(bench.config(), config);
}

#[test]
fn a_context_without_a_name_is_not_added() {
    let bench = Bench::new(TWO);
    let args = AddArgs { context: String::new(), ca: None, crt: None, key: None };
    let error = bench.run(ConfigCommand::Add(args)).unwrap_err();
    assert_eq!(error.kind, crate::command_error::Kind::Usage);
    assert_eq!(bench.config().contexts.len(), 2);
}

#[test]
fn another_context_becomes_current_only_if_it_exists() {
    let bench = Bench::new(TWO);
    bench.run(ConfigCommand::Context { context: "b".into() }).unwrap();
    assert_eq!(bench.config().context, "b");
    let error = bench.run(ConfigCommand::Context { context: "z".into() }).unwrap_err();
    assert_eq!(error.kind, crate::command_error::Kind::Usage);
    assert_eq!(bench.config().context, "b");
}

#[test]
fn white_space_around_endpoints_and_nodes_is_not_stored() {
    let bench = Bench::new(TWO);
    bench.run(ConfigCommand::Endpoint { endpoints: vec![" 10.0.0.2 ".into(), "\t10.0.0.3\n".into()] }).unwrap();
    bench.run(ConfigCommand::Node { nodes: vec!["\n10.0.0.4 ".into()] }).unwrap();
    let context = &bench.config().contexts["a"];
    assert_eq!((context.endpoints.join(","), context.nodes.join(",")), ("10.0.0.2,10.0.0.3".into(), "10.0.0.4".into()));
}

#[test]
fn half_a_pair_of_certificate_and_key_is_refused() {
    let bench = Bench::new(TWO);
    let file = || Some(bench.path());
    for (crt, key) in [(file(), None), (None, file())] {
        let add = ConfigCommand::Add(AddArgs { context: "half".into(), ca: None, crt, key });
        assert_eq!(bench.run(add).unwrap_err().kind, crate::command_error::Kind::Usage);
    }
    assert_eq!(bench.config(), TalosConfig::from_yaml(TWO).unwrap());
}

#[test]
fn merging_the_same_file_again_renames() {
    let bench = Bench::new(TWO);
    bench.run(ConfigCommand::Merge { from: bench.path() }).unwrap();
    let config = bench.config();
    assert_eq!(config.contexts.keys().collect::<Vec<_>>(), ["a", "b", "a-1", "b-1"]);
    assert_eq!(config.context, "a-1");
}

#[test]
fn an_unknown_output_format_is_refused() {
    let bench = Bench::new(TWO);
    let error = bench.run(ConfigCommand::Info(InfoArgs { output: "wide".into() })).unwrap_err();
    assert_eq!(error.error.to_string(), "unknown output format: \"wide\"");
}

#[test]
fn removing_needs_a_confirmation_and_skips_the_current_context() {
    let bench = Bench::new(TWO);
    let remove = |context: &str, dry_run, noconfirm| {
        bench.run(ConfigCommand::Remove(RemoveArgs { context: context.into(), dry_run, noconfirm }))
    };
    remove("*", true, false).unwrap();
    assert_eq!(bench.config().contexts.len(), 2);
    assert_eq!(remove("z*", false, true).unwrap_err().kind, crate::command_error::Kind::Usage);
    assert_eq!(remove("b", false, false).unwrap_err().kind, crate::command_error::Kind::Usage);
    remove("a", false, true).unwrap();
    assert_eq!(bench.config(), TalosConfig::from_yaml(TWO).unwrap());
    remove("*", false, true).unwrap();
    let left = bench.config();
    assert_eq!(left.context, "a");
    assert_eq!(left.contexts.keys().collect::<Vec<_>>(), ["a"]);
}

#[test]
fn merging_a_file_that_is_not_there_changes_nothing() {
    let bench = Bench::new(TWO);
    let error = bench.run(ConfigCommand::Merge { from: bench.dir.path().join("missing") }).unwrap_err();
    assert_eq!(error.kind, crate::command_error::Kind::Usage);
    assert_eq!(bench.config(), TalosConfig::from_yaml(TWO).unwrap());
}

#[test]
fn globs_match_whole_names() {
    assert!(glob("*", "anything") && glob("a*c", "abbc") && glob("a?c", "abc") && glob("admin@x", "admin@x"));
    assert!(glob("*a*b", "xaxbab") && glob("é*?", "éßü") && !glob("**b", "a") && !glob("a?", "a"));
    // Without trying every division of the name.
    assert!(!glob(&("*a".repeat(12) + "b"), &"a".repeat(60)));
    assert!(!glob("a", "ab") && !glob("a*c", "abd") && !glob("?", "") && glob("*", ""));
}

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn context(endpoint: &str) -> ConfigContext {
    ConfigContext { endpoints: vec![endpoint.to_owned()], ca: "Y2E=".to_owned(), ..Default::default() }
}

fn config(current: &str, contexts: &[(&str, &str)]) -> TalosConfig {
    let contexts = contexts.iter().map(|(name, endpoint)| ((*name).to_owned(), context(endpoint))).collect();
    TalosConfig { context: current.to_owned(), contexts }
}

#[test]
fn saved_files_are_private_and_read_back_equal() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new/config");
    let mut saved = config("a", &[("a", "10.5.0.2"), ("b", "10.6.0.2")]);
    saved.contexts["a"].nodes = vec!["10.5.0.2".to_owned(), "10.5.0.3".to_owned()];
    saved.contexts["a"].key = SecretText("a2V5".repeat(60));
    saved.contexts["b"].auth =
        Some(Auth { siderov1: Some(SideroAuth { identity: "me@example.org".to_owned() }), basic: None });
    saved.save(&path).unwrap();
    assert_eq!(TalosConfig::load(&path).unwrap(), saved);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn a_file_too_long_for_a_talosconfig_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.img");
    fs::File::create(&path).unwrap().set_len(crate::MAX_FILE_SIZE + 1).unwrap();
    let TalosConfigError::Read { source, .. } = TalosConfig::load(&path).unwrap_err() else { panic!("it was read") };
    assert_eq!(source.kind(), io::ErrorKind::FileTooLarge);
}

#[test]
fn yaml_looks_like_the_documented_file() {
    let mut shown = config("a", &[("a", "10.5.0.2")]);
    shown.contexts["a"].crt = "Y3J0".to_owned();
    let expected = "context: a\ncontexts:\n    a:\n        endpoints:\n            - 10.5.0.2\n        ca: Y2E=\n        crt: Y3J0\n";
    assert_eq!(shown.to_yaml().unwrap(), expected);
}

#[test]
fn empty_files_and_null_fields_are_empty_configurations() {
    assert_eq!(TalosConfig::from_yaml("").unwrap(), TalosConfig::default());
    assert_eq!(TalosConfig::from_yaml("---\n# nothing\n").unwrap(), TalosConfig::default());
    let read = TalosConfig::from_yaml("context: ''\ncontexts:\n  a:\n    endpoints:\n    ca:\n").unwrap();
    assert_eq!(read.contexts["a"], ConfigContext::default());
    let missing = TalosConfig::load(Path::new("/nonexistent/config")).unwrap();
    assert_eq!(missing, TalosConfig::default());
}

#[test]
fn unknown_fields_are_ignored_and_wrong_types_are_not() {
    let read = TalosConfig::from_yaml("context: a\nfuture: 1\ncontexts: {a: {endpoints: [x], later: y}}").unwrap();
    assert_eq!(read.contexts["a"].endpoints, ["x"]);
    let error = TalosConfig::from_yaml("context: a\ncontexts: [1]").unwrap_err();
    assert!(error.to_string().contains("line 2"), "{error}");
}

#[test]
fn an_error_shows_no_line_of_the_file() {
    let error = TalosConfig::from_yaml("contexts:\n  a:\n    key: c2VjcmV0\n    endpoints: {x: y}\n").unwrap_err();
    let text = error.to_string();
    assert!(text.contains("line 4") && !text.contains("c2VjcmV0"), "{text}");
}

#[test]
fn a_context_without_an_authority_is_named_as_such() {
    let error = ConfigContext::default().credentials().unwrap_err();
    assert_eq!(error.to_string(), "the context has no CA certificate");
}

#[test]
fn merge_renames_a_context_whose_name_is_taken_and_follows_the_current_one() {
    let mut own = config("a", &[("a", "10.5.0.2"), ("a-1", "10.6.0.2")]);
    let renames = own.merge(&config("a", &[("a", "10.7.0.2"), ("c", "10.8.0.2")]));
    assert_eq!(renames, [Rename { from: "a".to_owned(), to: "a-2".to_owned() }]);
    assert_eq!(own.context, "a-2");
    assert_eq!(own.contexts.keys().collect::<Vec<_>>(), ["a", "a-1", "a-2", "c"]);
    assert_eq!(own.contexts["a"], context("10.5.0.2"));
}

#[test]
fn merging_the_same_context_twice_renames_it() {
    let mut own = config("b", &[("a", "10.5.0.2"), ("b", "10.6.0.2")]);
    let renames = own.merge(&config("", &[("a", "10.5.0.2")]));
    assert_eq!(renames, [Rename { from: "a".to_owned(), to: "a-1".to_owned() }]);
    assert_eq!(own.contexts.keys().collect::<Vec<_>>(), ["a", "b", "a-1"]);
    assert_eq!((&own.contexts["a-1"], own.context.as_str()), (&context("10.5.0.2"), "b"));
}

#[test]
fn lookup_follows_the_documented_order() {
    let all = Lookup {
        flag: Some("/flag".into()),
        variable: Some("/variable".into()),
        config_home: Some("/xdg".into()),
        home: Some("/home".into()),
    };
    let path = |lookup: &Lookup, existing: &[&str]| {
        lookup.path_given(|path| existing.iter().any(|one| Path::new(one) == path)).unwrap()
    };
    assert_eq!(path(&all, &[]), Path::new("/flag"));
    let no_flag = Lookup { flag: None, ..all };
    assert_eq!(path(&no_flag, &[]), Path::new("/variable"));
    let none = Lookup { variable: None, ..no_flag };
    let both = ["/xdg/talos/config.yaml", "/home/.talos/config"];
    assert_eq!(path(&none, &both), Path::new("/xdg/talos/config.yaml"));
    assert_eq!(path(&none, &both[1..]), Path::new("/home/.talos/config"));
    assert_eq!(path(&none, &[SERVICE_ACCOUNT_PATH]), Path::new(SERVICE_ACCOUNT_PATH));
    assert_eq!(path(&none, &[]), Path::new("/home/.talos/config"));
    let homeless = Lookup::default().path_given(|_| false);
    assert!(matches!(homeless, Err(TalosConfigError::NoPath)));
}

#[test]
fn selecting_names_what_is_missing() {
    let own = config("", &[("a", "10.5.0.2")]);
    assert!(matches!(own.select(None), Err(TalosConfigError::NoCurrentContext)));
    assert!(matches!(own.select(Some("b")), Err(TalosConfigError::UnknownContext(name)) if name == "b"));
    assert_eq!(own.select(Some("a")).unwrap().0, "a");
}

#[test]
fn addresses_are_written_without_quotes() {
    let context = ConfigContext { endpoints: vec!["10.5.0.2".to_owned()], ..ConfigContext::default() };
    let contexts = [("a".to_owned(), context)].into_iter().collect();
    let text = TalosConfig { context: "a".to_owned(), contexts }.to_yaml().unwrap();
    assert!(text.contains("        endpoints:\n            - 10.5.0.2\n"), "{text}");
}

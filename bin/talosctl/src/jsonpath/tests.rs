use serde_json::json;

use super::*;

fn render(template: &str, value: &Value) -> String {
    Template::parse(template).unwrap().render(value)
}

#[test]
fn the_paths_of_the_resource_columns_are_understood() {
    let value = json!({
        "hostname": "cp-1", "addresses": ["10.5.0.2", "fd00::2"], "ready": true, "port": 6443, "empty": null,
        "endpoints": [{"host": "a", "port": 1}, {"host": "b", "port": 2}],
        "conditions": [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "False"}],
    });
    assert_eq!(render("{.hostname}", &value), "cp-1");
    assert_eq!(render("{.addresses}", &value), r#"["10.5.0.2","fd00::2"]"#);
    assert_eq!(render("{.ready}", &value), "true");
    assert_eq!(render("{.port}", &value), "6443");
    assert_eq!(render("{.empty}{.missing}", &value), "");
    assert_eq!(render("{.endpoints[*].host}", &value), "a b");
    assert_eq!(render(r#"{.conditions[?(@.type=="Ready")].status}"#, &value), "False");
    assert_eq!(render("{.addresses[:]}", &value), "10.5.0.2 fd00::2");
    assert_eq!(render("{@}", &json!("controlplane")), "controlplane");
    assert_eq!(render("{.}", &json!(3)), "3");
}

#[test]
fn positions_slices_and_quoted_names() {
    let value = json!({"a": [1, 2, 3], "b.c": "dot", "d": {"x": 1, "y": 2}});
    assert_eq!(render("{.a[0]} {.a[-1]} {.a[9]}", &value), "1 3 ");
    assert_eq!(render("{.a[1:]}/{.a[:-1]}/{.a[2:1]}", &value), "2 3/1 2/");
    assert_eq!(render("{['b.c']} {.b\\.c} {.d.*}", &value), "dot dot 1 2");
    assert_eq!(render(r#"{"a\tb"}{'\n'}"#, &value), "a\tb\n");
    assert_eq!(render(".d.x", &value), "1");
    assert_eq!(render("d.y", &value), "2");
    assert_eq!(render("$.d.y", &value), "2");
}

#[test]
fn filters_compare_texts_and_numbers() {
    let value = json!([{"n": 1, "t": "x"}, {"n": 2}, {"m": 1, "t": "a]b"}]);
    assert_eq!(render("{[?(@.n==2)]}", &value), r#"{"n":2}"#);
    assert_eq!(render("{[?(@.n!=2)].t}", &value), "x");
    assert_eq!(render("{[?(@.m)].t}", &value), "a]b");
    assert_eq!(render("{[?(@.t=='a]b')].m}", &value), "1");
}

#[test]
fn what_is_not_understood_is_refused() {
    assert_eq!(Template::parse("{.a"), Err(TemplateError::OpenBrace("{.a".to_owned())));
    for text in ["{..a}", "{.a[}", "{.a[x]}", "{.a[]}", "{.a b[?(@.x==y)]}", "{.a.}"] {
        assert!(matches!(Template::parse(text), Err(TemplateError::Syntax { .. })), "{text}");
    }
}

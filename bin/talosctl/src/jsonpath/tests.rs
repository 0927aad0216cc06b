use serde_json::json;

use super::*;

fn render(template: &str, value: &Value) -> String {
    Template::parse(template).unwrap().render(value).unwrap()
}

fn fails(template: &str, value: &Value) -> EvaluateError {
    Template::parse(template).unwrap().render(value).unwrap_err()
}

fn resource() -> Value {
    json!({
        "hostname": "cp-1", "addresses": ["10.5.0.2", "fd00::2"], "ready": true, "port": 6443, "empty": null, "none": [],
        "endpoints": [{"host": "a", "port": 1}, {"host": "b", "port": 2}],
        "conditions": [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "False"}],
        "controlPlane": {"port": 6443},
    })
}

#[test]
fn the_paths_of_the_resource_columns_are_understood() {
    let value = resource();
    assert_eq!(render("{.hostname}", &value), "cp-1");
    assert_eq!(render("{.addresses}", &value), r#"["10.5.0.2","fd00::2"]"#);
    assert_eq!(render("{.ready}", &value), "true");
    assert_eq!(render("{.port}", &value), "6443");
    assert_eq!(render("{.endpoints[*].host}", &value), "a b");
    assert_eq!(render(r#"{.conditions[?(@.type=="Ready")].status}"#, &value), "False");
    assert_eq!(render("{.addresses[:]}", &value), "10.5.0.2 fd00::2");
    assert_eq!(render("{@}", &json!("controlplane")), "controlplane");
    assert_eq!(render("{.}", &json!(3)), "3");
    assert_eq!(render("{.empty}", &value), "null");
}

#[test]
fn positions_slices_unions_and_quoted_names() {
    let value = json!({"a": [1, 2, 3, 4], "b.c": "dot", "d": {"x": 1, "y": 2}});
    assert_eq!(render("{.a[0]} {.a[-1]}", &value), "1 4");
    assert_eq!(render("{.a[1:]}/{.a[:-1]}/{.a[0:4:2]}/{.a[-2:]}", &value), "2 3 4/1 2 3/1 3/3 4");
    assert_eq!(render("{.a[0,2]}/{.d['y','x']}", &value), "1 3/2 1");
    assert_eq!(render("{['b.c']} {.b\\.c} {.d.*} {.d[*]}", &value), "dot dot 1 2 1 2");
    assert_eq!(render(r#"{"a\tb"}{'\n'}{"\u00e9"}"#, &value), "a\tb\n\u{e9}");
    assert_eq!(render(".d.x", &value), "1");
    assert_eq!(render("d.y", &value), "2");
    assert_eq!(render("$.d.y", &value), "2");
    assert_eq!(render("{.d}", &json!({"d": {"z": 1, "a": 2}})), r#"{"a":2,"z":1}"#, "keys are sorted");
}

#[test]
fn text_outside_of_braces_stays_as_it_is() {
    assert_eq!(render(r"a\n{.x}; ", &json!({"x": 1})), r"a\n1; ");
    assert_eq!(render(r#"{.x}{"; "}{true}{-2}"#, &json!({"x": 1})), "1; true-2");
}

#[test]
fn a_range_has_each_item_as_its_current_one() {
    let value = resource();
    assert_eq!(render("{range .addresses[*]}{@},{end}", &value), "10.5.0.2,fd00::2,");
    assert_eq!(render(r#"{range .endpoints[*]}{.host}:{.port}{"\n"}{end}done"#, &value), "a:1\nb:2\ndone");
    assert_eq!(render("{range .none[*]}{@},{end}.", &value), ".");
    let nested = json!({"l": [{"n": "a", "m": [1, 2]}, {"n": "b", "m": []}]});
    assert_eq!(render("{range .l[*]}{.n}({range .m[*]}{@};{end}){end}", &nested), "a(1;2;)b()");
}

#[test]
fn a_recursive_descent_finds_fields_at_every_level() {
    let value = resource();
    assert_eq!(render("{..port}", &value), "6443 1 2 6443");
    assert_eq!(render("{.endpoints..host}", &value), "a b");
    assert_eq!(render("{..endpoints[0].host}", &value), "a");
    assert_eq!(render("{.controlPlane..*}", &value), "6443");
    assert_eq!(fails("{..nope}", &value), EvaluateError::NotFound("nope".to_owned()));
}

#[test]
fn filters_compare_texts_numbers_and_each_other() {
    let value = json!([{"n": 1, "t": "x"}, {"n": 2}, {"m": 1, "t": "a]b"}, {"n": 2.5, "t": "x"}]);
    let of = |filter: &str| render(&format!("{{[?({filter})]}}"), &value);
    assert_eq!(of("@.n==2"), r#"{"n":2}"#);
    assert_eq!(of("@.n!=2"), r#"{"n":1,"t":"x"} {"n":2.5,"t":"x"}"#);
    assert_eq!(of("@.n > 1"), r#"{"n":2} {"n":2.5,"t":"x"}"#);
    assert_eq!(of("@.n<=1"), r#"{"n":1,"t":"x"}"#);
    assert_eq!(of("@.n >= 2 && @.t"), r#"{"n":2.5,"t":"x"}"#);
    assert_eq!(of("@.m || @.n < 2"), r#"{"n":1,"t":"x"} {"m":1,"t":"a]b"}"#);
    assert_eq!(of("(@.m || @.n) && @.t == 'x' && @.n < 2"), r#"{"n":1,"t":"x"}"#);
    assert_eq!(of("@.t < 'b'"), r#"{"m":1,"t":"a]b"}"#);
    assert_eq!(render("{[?(@.t=='a]b')].m}", &value), "1");
    assert_eq!(render("{[?(@.n==9)]}", &value), "");
}

#[test]
fn a_path_that_leads_nowhere_is_an_error_and_an_empty_cell() {
    let value = resource();
    let missing = |name: &str| EvaluateError::NotFound(name.to_owned());
    assert_eq!(fails("{.nope}", &value), missing("nope"));
    assert_eq!(fails("{.hostname.nope}", &value), missing("nope"));
    assert_eq!(fails("{.endpoints[*].nope}", &value), missing("nope"));
    assert_eq!(fails("{range .nope[*]}{end}", &value), missing("nope"));
    assert_eq!(fails("{.addresses[2]}", &value), EvaluateError::OutOfBounds { index: 2, length: 2 });
    assert_eq!(fails("{.addresses[-3]}", &value), EvaluateError::OutOfBounds { index: -3, length: 2 });
    assert_eq!(fails("{.hostname[0]}", &value), EvaluateError::NotAList("a position"));
    assert_eq!(fails("{.hostname[*]}", &value), EvaluateError::NotAList("items"));
    for template in ["{.nope}", "{.empty}", "{.addresses[9]}", "{.hostname[*].x}", "{.none[*].x}"] {
        assert_eq!(Template::parse(template).unwrap().cell(&value).unwrap(), "", "{template}");
    }
}

#[test]
fn templates_that_cannot_be_parsed_are_refused() {
    assert_eq!(Template::parse("{.a"), Err(TemplateError::OpenBrace { rest: ".a".to_owned() }));
    for text in
        ["{.a[}", "{.a[x]}", "{.a[]}", "{.a[?(@.x==y)]}", "{.a.}", "{.a[::0]}", "{'a}", "{.a b[1}", "{.a[?(1)]}"]
    {
        assert!(matches!(Template::parse(text), Err(TemplateError::Syntax { .. })), "{text}");
    }
    assert_eq!(Template::parse("{range .a}x"), Err(TemplateError::OpenRange));
    assert_eq!(Template::parse("x{end}"), Err(TemplateError::EndWithoutRange));
}

#[test]
fn templates_are_bounded() {
    let deep = |open: &str, close: &str| format!("{}@.a{}", open.repeat(40), close.repeat(40));
    assert_eq!(Template::parse(&"{range @}".repeat(40)), Err(TemplateError::TooDeep));
    assert_eq!(Template::parse(&format!("{{[?({})]}}", deep("(", ")"))), Err(TemplateError::TooDeep));
    assert_eq!(Template::parse(&format!("{{{}}}", deep("[?(@", ")]"))), Err(TemplateError::TooDeep));
    assert_eq!(Template::parse(&"x".repeat(70_000)), Err(TemplateError::TooLong));
    let nested = (0..60).fold(json!([1]), |inner, _| json!([inner]));
    assert_eq!(fails("{..*..*..*..*..*..*}", &nested), EvaluateError::TooManyValues);
    // Two thousand values on both sides are four million pairs.
    let wide = json!([(0..2000).collect::<Vec<_>>()]);
    assert_eq!(fails("{[?(@..*<@..*)]}", &wide), EvaluateError::TooManyValues);
    assert_eq!(fails(&"{@}".repeat(70), &json!("x".repeat(1_000_000))), EvaluateError::TooLong);
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-c]{0,3}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec(("[a-c]", inner), 0..4)
                    .prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    /// Mostly tokens of the language, so that much of it parses.
    fn text() -> impl Strategy<Value = String> {
        let token = prop::sample::select(vec![
            "{", "}", "{range ", "{end}", ".", "..", "*", "[", "]", "[*]", "[?(", ")]", "(", ")", "@", "$", "a", "b",
            "'a'", "\"", "\\", ",", ":", "-1", "0", "2", "==", "!=", "<", ">=", "&&", "||", " ", "true", "\u{e9}",
            "\\u00e9",
        ]);
        prop_oneof![prop::collection::vec(token, 0..24).prop_map(|tokens| tokens.concat()), ".{0,40}"]
    }

    proptest! {
        #[test]
        fn no_template_panics_on_any_value(text in text(), value in value()) {
            if let Ok(template) = Template::parse(&text) {
                // Both may fail, neither may panic; what is an error for one is at most empty for the other.
                let strict = template.render(&value);
                let lenient = template.cell(&value);
                if strict.is_ok() {
                    prop_assert!(lenient.is_ok());
                }
            }
        }

        #[test]
        fn a_quoted_text_is_printed_as_it_was_meant(text in "[^'\\\\]{0,20}") {
            let template = Template::parse(&format!("{{'{text}'}}")).unwrap();
            prop_assert_eq!(template.render(&Value::Null).unwrap(), text);
        }
    }
}

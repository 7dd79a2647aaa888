//! What must agree with the table of routes: the binaries, the watch routes, the template that deploys them, the OpenAPI document
//! in the repository.

use jobplane_functions::routes::table;
use jobplane_protocol::ErrorCode;
use jobplane_tests::Cell;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The words that files of this kind in a directory are named after.
fn words(directory: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(workspace().join(directory)).expect("it is there");
    entries.map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned()).collect()
}

#[test]
fn every_route_word_has_one_file_and_one_binary_and_there_is_no_other() {
    let functions: BTreeSet<_> = table().iter().map(|route| route.function.to_owned()).collect();
    let mut binaries = words("functions/src/bin");
    assert!(binaries.remove("sweep"), "the scheduled function has no route");
    assert!(binaries.remove("migrate"), "nor has the one that deployments ask");
    assert_eq!(binaries, functions);
    let mut files = words("functions/src/routes");
    assert!(files.remove("table"), "what a row is");
    assert_eq!(files, functions);
}

#[test]
fn no_route_is_there_twice() {
    let mut seen = BTreeSet::new();
    for route in table() {
        assert!(seen.insert((route.method.as_str(), route.path)), "{} {}", route.method.as_str(), route.path);
    }
}

#[test]
fn the_watch_routes_are_the_table() {
    type Router = BTreeMap<String, BTreeSet<(String, String)>>;
    let manifest = std::fs::read_to_string(workspace().join("Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let router = &manifest["workspace"]["metadata"]["lambda"]["watch"]["router"];
    let text = |entry: &toml::Value, name: &str| entry[name].as_str().unwrap().to_owned();
    let watched: Router = router
        .as_table()
        .unwrap()
        .iter()
        .map(|(path, entries)| {
            let entries = entries.as_array().unwrap().iter();
            (path.clone(), entries.map(|entry| (text(entry, "method"), text(entry, "function"))).collect())
        })
        .collect();
    let mut wanted = Router::new();
    for route in table() {
        let entry = (route.method.as_str().to_owned(), route.function.to_owned());
        wanted.entry(route.path.to_owned()).or_default().insert(entry);
    }
    assert_eq!(watched, wanted);
}

#[test]
fn the_template_deploys_each_binary_under_its_word_and_every_route_of_the_table() {
    let template = std::fs::read_to_string(workspace().join("template.yaml")).unwrap();
    // Its tags, such as `!Ref`, are dropped.
    let template: Value = serde_saphyr::from_str(&template).unwrap();
    let (mut binaries, mut routes) = (BTreeSet::new(), BTreeSet::new());
    for (name, resource) in template["Resources"].as_object().unwrap() {
        if resource["Type"] != "AWS::Serverless::Function" {
            continue;
        }
        let binary = resource["Metadata"]["BuildProperties"]["Binary"].as_str().expect(name);
        assert_eq!(name.to_lowercase(), binary.replace('_', ""));
        assert!(binaries.insert(binary.to_owned()), "{binary} is deployed twice");
        let events =
            resource["Properties"]["Events"].as_object().into_iter().flat_map(|events| events.values());
        for event in events.filter(|event| event["Type"] == "HttpApi") {
            let text = |key: &str| event["Properties"][key].as_str().expect(key).to_owned();
            let route = (text("Method"), text("Path"), binary.to_owned());
            assert!(routes.insert(route.clone()), "{route:?} is there twice");
        }
    }
    assert_eq!(binaries, words("functions/src/bin"));
    let wanted = table()
        .into_iter()
        .map(|route| (route.method.as_str().to_owned(), route.path.to_owned(), route.function.to_owned()));
    assert_eq!(routes, wanted.collect());
}

#[test]
fn the_openapi_document_in_the_repository_is_made_from_the_code() {
    let file = workspace().join("docs/openapi.json");
    let made = serde_json::to_string_pretty(&jobplane_functions::openapi_document()).unwrap() + "\n";
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(&file, &made).unwrap();
    }
    let kept = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(kept == made, "docs/openapi.json is out of date: run the tests once with UPDATE_OPENAPI=1");
}

#[test]
fn every_reference_of_the_openapi_document_leads_somewhere() {
    let document = jobplane_functions::openapi_document();
    let mut references = BTreeSet::new();
    collect(&document, &mut references);
    assert!(!references.is_empty());
    for reference in references {
        let pointer = reference.trim_start_matches('#');
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
    let operations: usize =
        document["paths"].as_object().unwrap().values().map(|path| path.as_object().unwrap().len()).sum();
    assert_eq!(operations, table().len());
}

#[test]
fn every_error_code_is_documented_with_the_status_that_it_is_answered_with() {
    let document = jobplane_functions::openapi_document();
    let codes = document["components"]["schemas"]["ErrorCode"]["oneOf"].as_array().unwrap();
    let mut statuses = BTreeSet::new();
    for code in codes {
        let (name, description) = (&code["const"], code["description"].as_str().unwrap());
        let code: ErrorCode = serde_json::from_value(name.clone()).unwrap();
        if code != ErrorCode::Unknown {
            let documented = description.split_once(':').and_then(|(status, _)| status.parse().ok());
            assert_eq!(documented, Some(code.status()), "{name}: {description}");
            statuses.insert(code.status());
        }
    }
    assert_eq!(statuses.into_iter().collect::<Vec<_>>(), [401, 403, 404, 405, 409, 413, 422, 429, 500, 503]);
}

fn collect(node: &Value, references: &mut BTreeSet<String>) {
    match node {
        Value::Array(nodes) => nodes.iter().for_each(|node| collect(node, references)),
        Value::Object(fields) => {
            references.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|node| collect(node, references));
        }
        _ => {}
    }
}

#[tokio::test]
async fn a_control_plane_that_is_not_ready_says_when_to_ask_again() {
    let cell = Cell::new().await;
    cell.get("/readyz", "").await.ok();
    for change in ["update refinery_schema_history set version = 0", "drop table refinery_schema_history"] {
        cell.db.batch_execute(change).await.unwrap();
        let reply = cell.get("/readyz", "").await;
        assert_eq!(reply.headers["retry-after"], "1", "{change}");
        reply.refused(503, "unavailable");
    }
}

/// The rows of a table in `docs/api.md` whose first cell is a name, cell by cell.
fn documented(section: &str) -> BTreeMap<String, Vec<String>> {
    let text = std::fs::read_to_string(workspace().join("docs/api.md")).unwrap();
    let (_, rest) = text.split_once(&format!("\n## {section}\n")).expect(section);
    let section = rest.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    let mut found = BTreeMap::new();
    for row in rows {
        let (name, rest) = row.split_once("` |").expect("a name");
        let cells = rest.trim_end_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
        assert!(found.insert(name.to_owned(), cells).is_none(), "{name} is there twice");
    }
    found
}

#[test]
fn the_table_of_errors_has_every_code_with_its_status_and_what_a_caller_does() {
    let document = jobplane_functions::openapi_document();
    let codes = document["components"]["schemas"]["ErrorCode"]["oneOf"].as_array().unwrap();
    let mut left = documented("Errors");
    for name in codes.iter().map(|code| code["const"].as_str().unwrap()).filter(|name| *name != "unknown") {
        let code: ErrorCode = serde_json::from_value(name.into()).unwrap();
        let cells = left.remove(name).unwrap_or_else(|| panic!("{name} is not documented"));
        let [status, meaning, action] = &cells[..] else { panic!("{name}: {cells:?}") };
        assert_eq!(*status, code.status().to_string(), "{name}");
        assert!(!meaning.is_empty(), "{name}");
        assert!(["retry", "stop", "fix"].iter().any(|word| action.starts_with(word)), "{name}: {action}");
    }
    assert!(left.is_empty(), "no such codes: {left:?}");
}

#[test]
fn the_table_of_limits_has_every_limit_with_its_number() {
    let source = std::fs::read_to_string(workspace().join("protocol/src/limits.rs")).unwrap();
    let mut left = documented("Limits");
    for constant in source.lines().filter_map(|line| line.strip_prefix("pub const ")) {
        let (name, rest) = constant.split_once(':').unwrap();
        let (_, value) = rest.trim_end_matches(';').split_once('=').unwrap();
        let factors = value.split('*').map(|factor| factor.trim().replace('_', "").parse::<u64>().unwrap());
        let digits = factors.product::<u64>().to_string();
        let mut number = String::new();
        for (place, digit) in digits.char_indices() {
            if place > 0 && (digits.len() - place).is_multiple_of(3) {
                number.push(',');
            }
            number.push(digit);
        }
        let cells = left.remove(name).unwrap_or_else(|| panic!("{name} is not documented"));
        let numbers = cells[0].split([' ', '(', ')', ':', ';']).map(|word| word.trim_end_matches(','));
        assert!(numbers.into_iter().any(|word| word == number), "{name} is {number}: {}", cells[0]);
    }
    assert!(left.is_empty(), "no such limits: {left:?}");
}

//! The specification: whole, the same in both forms, and true.

use std::{collections::BTreeSet, fs, io::Read};

use flate2::read::GzDecoder;
use mongodb::bson::oid::ObjectId;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    harness::{Answer, TestServer},
    programs::{Language, source},
};

#[tokio::test]
async fn the_specification_names_every_operation_and_every_status() {
    let server = TestServer::start().await;
    let json = server.fetch("/openapi.json").await;
    assert_eq!(json.status, 200);
    assert!(json.header("content-type").starts_with("application/json"), "{:?}", json.headers);
    let spec = json.json();
    let yaml = server.fetch("/openapi.yaml").await;
    assert_eq!(yaml.status, 200);
    let from_yaml: Value = serde_yaml::from_str(&yaml.text).expect("the other form parses");
    assert_eq!(from_yaml, spec);

    let mut found = Vec::new();
    for (path, operations) in spec["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let name = operation["operationId"].as_str().unwrap_or_default();
            let statuses: BTreeSet<&str> =
                operation["responses"].as_object().unwrap().keys().map(String::as_str).collect();
            let statuses: Vec<&str> = statuses.into_iter().collect();
            found.push(format!("{method} {path} {name} {}", statuses.join(" ")));
            assert!(operation["summary"].is_string(), "{name} has no summary");
            for parameter in operation["parameters"].as_array().unwrap() {
                assert!(parameter["description"].is_string(), "{parameter} of {name} has no description");
            }
            for (status, answer) in operation["responses"].as_object().unwrap() {
                assert!(answer["description"].as_str().is_some_and(|text| !text.is_empty()), "{status} of {name}");
                if status.starts_with(['4', '5', 'd']) {
                    let problem = &answer["content"]["application/problem+json"]["schema"]["$ref"];
                    assert_eq!(problem, "#/components/schemas/Problem", "{status} of {name}: {answer}");
                }
                if ["429", "503"].contains(&status.as_str()) {
                    assert!(answer["headers"]["RETRY-AFTER"].is_object(), "{name}: {answer}");
                }
            }
        }
    }
    found.sort();
    assert_eq!(
        found,
        [
            "get /api/changes readChanges 200 422 429 503 default",
            "get /api/events followEvents 200 422 429 503 default",
            "get /api/messages listMessages 200 404 422 429 503 default",
            "get /api/messages/{id} getMessage 200 404 429 503 default",
            "get /api/presence getPresence 200 422 429 default",
            "get /api/rooms listRooms 200 422 429 503 default",
            "get /api/status getStatus 200 422 429 default",
            "post /api/messages sendMessage 200 201 400 401 403 408 409 413 415 422 429 503 default",
        ]
    );
    let list = &spec["paths"]["/api/messages"]["get"];
    let named: Vec<&str> =
        list["parameters"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(named, ["room", "inbox", "with", "q", "limit", "before", "after", "around", "since"]);
    let limit = &list["parameters"][4]["schema"];
    assert_eq!((&limit["type"], &limit["default"]), (&json!("integer"), &json!(50)), "{limit}");
    assert_eq!((limit["minimum"].as_f64(), limit["maximum"].as_f64()), (Some(1.0), Some(200.0)), "{limit}");
    let mut references = Vec::new();
    collect_references(&spec, &mut references);
    assert!(!references.is_empty());
    for reference in references {
        let pointer = reference.strip_prefix('#').expect("a reference within the document");
        assert!(spec.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    server.stop().await;
}

#[tokio::test]
async fn what_the_specification_says_of_answers_is_what_comes() {
    let server = TestServer::start().await;
    let spec = server.fetch("/openapi.json").await.json();
    let began = server.fetch("/api/changes?all=true").await.json()["cursor"].as_str().unwrap().to_owned();
    let message = json!({ "id": ObjectId::new().to_hex(), "sender": "Ana", "content": "x" });
    let other = json!({ "id": message["id"], "sender": "Ana", "content": "y" });
    let post = |body: String, kind: &'static str| {
        let request = server.request(Method::POST, "/api/messages").header("content-type", kind);
        Answer::to(request.body(body))
    };
    let json = "application/json";
    let id_path = format!("/api/messages/{}", message["id"].as_str().unwrap());
    let answers = [
        ("post", "/api/messages", 201, post(message.to_string(), json).await),
        ("post", "/api/messages", 200, post(message.to_string(), json).await),
        ("post", "/api/messages", 400, post("{".into(), json).await),
        ("post", "/api/messages", 409, post(other.to_string(), json).await),
        ("post", "/api/messages", 413, post(" ".repeat(65 * 1024), json).await),
        ("post", "/api/messages", 415, post(message.to_string(), "text/plain").await),
        ("post", "/api/messages", 422, post("{}".into(), json).await),
        ("get", "/api/messages", 200, server.fetch("/api/messages").await),
        ("get", "/api/messages", 404, server.fetch("/api/messages?around=x").await),
        ("get", "/api/messages", 422, server.fetch("/api/messages?limit=0").await),
        ("get", "/api/messages/{id}", 200, server.fetch(&id_path).await),
        ("get", "/api/messages/{id}", 404, server.fetch("/api/messages/x").await),
        ("get", "/api/changes", 200, server.fetch("/api/changes?all=true&after=garbage").await),
        ("get", "/api/changes", 200, server.fetch(&format!("/api/changes?all=true&after={began}")).await),
        ("get", "/api/changes", 422, server.fetch("/api/changes").await),
        ("get", "/api/events", 422, server.fetch("/api/events").await),
        ("get", "/api/rooms", 200, server.fetch("/api/rooms").await),
        ("get", "/api/presence", 200, server.fetch("/api/presence?room=a").await),
        ("get", "/api/presence", 422, server.fetch("/api/presence").await),
        ("get", "/api/status", 200, server.fetch("/api/status").await),
        ("get", "/api/status", 422, server.fetch("/api/status?after=now").await),
        ("get", "/api/rooms", 422, server.fetch("/api/rooms?limit=0").await),
    ];
    for (method, path, status, answer) in answers {
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text);
        let documented = &spec["paths"][path][method]["responses"][status.to_string()];
        let kind = answer.header("content-type");
        let schema = &documented["content"][kind]["schema"];
        assert!(schema.is_object(), "{method} {path} {status} as {kind} is not in {documented}");
        check(&spec, schema, &answer.json(), &format!("{method} {path} {status}"));
        if let Some(headers) = documented["headers"].as_object() {
            for (name, header) in headers {
                let required = header["required"].as_bool().unwrap_or(false);
                assert!(!required || !answer.header(name).is_empty(), "{method} {path} {status} has no {name}");
            }
        }
    }
    server.stop().await;
}

/// All that Spectral knows of OpenAPI, but that there is a mail address to write to.
const RULES: &str = "extends: [[\"spectral:oas\", all]]\nrules: { contact-properties: off }\n";

#[tokio::test]
async fn spectral_finds_nothing_wrong_with_the_specification() {
    let Some(node) = Language::specifications().await else {
        return;
    };
    let server = TestServer::start().await;
    let folder = TempDir::new_in(&node.folder).unwrap();
    fs::write(folder.path().join("openapi.yaml"), server.fetch("/openapi.yaml").await.text).unwrap();
    fs::write(folder.path().join("rules.yaml"), RULES).unwrap();
    let spectral = node.folder.join("node_modules/@stoplight/spectral-cli/dist/index.js");
    let args = ["lint", "openapi.yaml", "--ruleset", "rules.yaml", "--fail-severity", "hint", "--quiet"];
    if let Err(complaint) = node.attempt(&spectral, &args, folder.path()).await {
        panic!("{complaint}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_client_made_of_the_specification_compiles_and_sends_and_reads() {
    let Some(node) = Language::specifications().await else {
        return;
    };
    let server = TestServer::start().await;
    let folder = TempDir::new_in(&node.folder).unwrap();
    let run = async |program: &str, args: &[&str]| {
        let program = node.folder.join(program);
        node.attempt(&program, args, folder.path()).await.unwrap_or_else(|why| panic!("{why}"))
    };
    fs::write(folder.path().join("openapi.json"), server.fetch("/openapi.json").await.text).unwrap();
    fs::write(folder.path().join("package.json"), r#"{ "type": "module" }"#).unwrap();
    fs::copy(source("client.ts"), folder.path().join("client.ts")).unwrap();
    run("node_modules/openapi-typescript/bin/cli.js", &["openapi.json", "--output", "schema.d.ts"]).await;
    let options = json!({ "compilerOptions": {
        "strict": true, "target": "es2022", "module": "nodenext", "lib": ["es2022", "dom", "dom.iterable"], "types": [],
    } });
    fs::write(folder.path().join("tsconfig.json"), options.to_string()).unwrap();
    run("node_modules/typescript/bin/tsc", &[]).await;
    let program = folder.path().join("client.js");
    let printed = node.attempt(&program, &[&server.url], folder.path()).await.expect("it runs");
    let seen: Value = serde_json::from_str(&printed).expect("what it has seen");
    let id = "6745b2c3d4e5f60718293a4b";
    assert_eq!(
        seen,
        json!({
            "statuses": [201, 200, 422, 200, 200],
            "fields": ["content"],
            "contents": ["desde un cliente generado"],
            "sender": "Gema",
            "frames": ["the cursor is not one of this server"],
            "here": ["general"],
            "newest": [id],
        })
    );
    server.stop().await;
}

#[tokio::test]
async fn the_documentation_is_swagger_ui_and_asks_nobody_else_for_it() {
    let server = TestServer::start().await;
    let docs = server.fetch("/docs").await;
    assert_eq!(docs.status, 200, "{}", docs.text);
    assert!(docs.header("content-type").starts_with("text/html"));
    assert!(docs.header("content-security-policy").contains("frame-ancestors 'none'"), "{:?}", docs.headers);
    assert!(docs.text.contains("SwaggerUIBundle("), "no Swagger UI");
    assert!(docs.text.contains("sendMessage"), "the page holds the specification");
    for foreign in ["src=\"http", "src=\"//", "href=\"http", "@import"] {
        assert!(!docs.text.contains(foreign), "the page loads from elsewhere: {foreign}");
    }
    for ours in ["<!doctype html>\n<html lang=\"en\">", "name=\"viewport\"", "<title>REST API", "<a href=\"/\">"] {
        assert!(docs.text.contains(ours), "no {ours} around it");
    }
    assert!(!docs.text.contains("<title>Swagger UI"), "it is given another title");
    assert_eq!(server.fetch("/docs/").await.text, docs.text);
    server.stop().await;
}

#[tokio::test]
async fn the_documentation_is_sent_packed_and_once() {
    let server = TestServer::start().await;
    let ask = |name: &'static str, value: String| server.request(Method::GET, "/docs").header(name, value).send();
    let packed = ask("Accept-Encoding", "gzip".to_owned()).await.unwrap();
    assert_eq!(packed.headers()["content-encoding"], "gzip");
    let tag = packed.headers()["etag"].to_str().unwrap().to_owned();
    let bytes = packed.bytes().await.unwrap();
    let mut page = String::new();
    GzDecoder::new(&bytes[..]).read_to_string(&mut page).unwrap();
    assert_eq!(page, server.fetch("/docs").await.text);
    assert!(bytes.len() * 2 < page.len(), "{} of {} bytes", bytes.len(), page.len());
    let again = ask("If-None-Match", tag).await.unwrap();
    assert_eq!(again.status(), 304);
    assert!(again.bytes().await.unwrap().is_empty());
    server.stop().await;
}

/// A value against its schema, as far as our documents use schemas: no field that is not named, none missing.
pub fn check(spec: &Value, schema: &Value, value: &Value, place: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        return check(spec, spec.pointer(&reference[1..]).expect("a schema"), value, place);
    }
    if let Some(kind) = schema["discriminator"]["propertyName"].as_str() {
        let reference = &schema["discriminator"]["mapping"][value[kind].as_str().expect("a kind")];
        return check(spec, &json!({ "$ref": reference }), value, place);
    }
    if let Some(all) = schema["allOf"].as_array() {
        return all.iter().filter(|part| part.get("$ref").is_some()).for_each(|part| check(spec, part, value, place));
    }
    let may_be_null = schema["nullable"] == true || schema["type"][1] == "null";
    if may_be_null && value.is_null() {
        return;
    }
    if let Some(allowed) = schema["enum"].as_array() {
        assert!(allowed.contains(value), "{place}: {value} is none of {allowed:?}");
    }
    match schema["type"][0].as_str().or(schema["type"].as_str()) {
        Some("object") => {
            let fields = value.as_object().unwrap_or_else(|| panic!("{place}: {value}"));
            for name in schema["required"].as_array().into_iter().flatten() {
                assert!(fields.contains_key(name.as_str().unwrap()), "{place}: {value} has no {name}");
            }
            for (name, value) in fields {
                let schema = &schema["properties"][name];
                assert!(schema.is_object(), "{place}: {name} is not in the schema");
                let required = |names: &Value| names.as_array().is_some_and(|names| names.contains(&json!(name)));
                if !value.is_null() || required(&schema["required"]) {
                    check(spec, schema, value, &format!("{place} {name}"));
                }
            }
        }
        Some("array") => {
            let items = value.as_array().unwrap_or_else(|| panic!("{place}: {value}"));
            items.iter().for_each(|item| check(spec, &schema["items"], item, place));
        }
        Some("string") => assert!(value.is_string(), "{place}: {value}"),
        Some("number") => assert!(value.is_number(), "{place}: {value}"),
        Some("boolean") => assert!(value.is_boolean(), "{place}: {value}"),
        Some("integer") => assert!(value.is_i64() || value.is_u64(), "{place}: {value}"),
        other => panic!("{place}: a schema of {other:?}"),
    }
}

pub fn collect_references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("$ref").and_then(Value::as_str));
            fields.values().for_each(|value| collect_references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_references(item, found)),
        _ => {}
    }
}

//! The document: a snapshot, and the walk of `production.md` §4 over all that a client may send.

use serde_json::Value;
use tbg_tests::app::App;

async fn document() -> Value {
    App::new().await.get("/openapi.json", None).await.ok()
}

/// Whoever changes the wire sees it here.
#[tokio::test]
async fn the_document_is_as_it_was_reviewed() {
    insta::assert_json_snapshot!(document().await);
}

#[tokio::test]
async fn every_operation_is_described() {
    let document = document().await;
    let mut missing = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let has = |field: &str| operation[field].as_str().is_some_and(|text| !text.is_empty());
            if !has("summary") || !has("operationId") || operation["tags"].as_array().is_none() {
                missing.push(format!("{method} {path}"));
            }
        }
    }
    assert!(missing.is_empty(), "no summary, id or tag: {missing:?}");
}

#[tokio::test]
async fn whatever_a_client_sends_is_bounded() {
    let document = document().await;
    let mut unbounded = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let place = format!("{method} {path}");
            let body = &operation["requestBody"]["content"]["application/json"]["schema"];
            if !body.is_null() {
                walk(&document, body, &format!("{place} body"), &mut unbounded);
            }
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                if parameter["in"] == "query" {
                    let name = parameter["name"].as_str().unwrap();
                    walk(&document, &parameter["schema"], &format!("{place} query.{name}"), &mut unbounded);
                }
            }
        }
    }
    assert!(unbounded.is_empty(), "{}", unbounded.join("\n"));
}

/// Follows a schema to its leaves and names what has no bound.
fn walk(document: &Value, schema: &Value, place: &str, unbounded: &mut Vec<String>) {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap();
        return walk(document, &document["components"]["schemas"][name], place, unbounded);
    }
    for list in ["oneOf", "anyOf", "allOf"] {
        for part in schema[list].as_array().into_iter().flatten() {
            walk(document, part, place, unbounded);
        }
    }
    let has = |field: &str| !schema[field].is_null();
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    for kind in kinds {
        let fault = match kind {
            "object" if schema["additionalProperties"] != Value::Bool(false) && !has("maxProperties") => {
                "admits other keys"
            }
            "array" if !has("maxItems") => "has no maxItems",
            "integer" | "number" if !(has("enum") || has("minimum") && has("maximum")) => "has no bounds",
            "string" if has("enum") || has("const") || schema["format"] == "date-time" => continue,
            "string" if !has("maxLength") => "has no maxLength",
            "string" if !(has("minLength") || has("pattern") || has("format")) => "has no lower bound",
            _ => "",
        };
        if !fault.is_empty() {
            unbounded.push(format!("{place} {fault}"));
        }
        if kind == "array" {
            walk(document, &schema["items"], &format!("{place}[]"), unbounded);
        }
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(document, property, &format!("{place}.{name}"), unbounded);
    }
}

//! The document says what the daemon does.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::{Answer, Daemon};
use fastmig_api::{Endpoint, Method};
use serde_json::{json, Value};

/// Checks an answer against what the document says of it.
fn check(document: &Value, endpoint: Endpoint, answer: &Answer) {
    let route = endpoint.route();
    let call = &document["paths"][route.path][route.method.name().to_lowercase()];
    assert!(call.is_object(), "{endpoint:?} is not in the document");
    let mut response = call["responses"][answer.status.to_string()].clone();
    if let Some(reference) = response["$ref"].as_str() {
        let pointer = reference.trim_start_matches('#').to_owned();
        response = document.pointer(&pointer).cloned().unwrap_or_default();
    }
    let schema = &response["content"]["application/json"]["schema"];
    assert!(
        schema.is_object(),
        "{endpoint:?} answers {}, which the document does not know: {response}",
        answer.status
    );
    let whole = json!({ "components": document["components"], "allOf": [schema] });
    let validator = jsonschema::validator_for(&whole).unwrap();
    let errors: Vec<String> = validator.iter_errors(&answer.json()).map(|e| e.to_string()).collect();
    assert!(errors.is_empty(), "{endpoint:?}: {errors:?}\n{}", answer.text());
}

#[test]
fn every_call_answers_as_the_document_says() {
    let daemon = Daemon::start_cluster();
    let _container = daemon.make_container("web");
    let served = daemon.call("GET", "/v1/openapi.json", "").json();
    assert_eq!(served, fastmig_api::openapi::openapi());
    assert!(daemon.call("POST", "/v1/containers/web/standby", "").status == 409);
    let operations = daemon.call("GET", "/v1/operations", "").json();
    let operation = operations["operations"][0]["id"].as_str().unwrap().to_owned();
    for endpoint in Endpoint::ALL {
        if [Endpoint::Events, Endpoint::Metrics, Endpoint::OpenApi].contains(&endpoint) {
            continue;
        }
        let route = endpoint.route();
        let names: &[&str] = match endpoint {
            Endpoint::Operation | Endpoint::Cancel => &[&operation, "none"],
            _ => &["web", "none"],
        };
        for name in names {
            let body = if route.method == Method::Post { r#"{"checkpoint":"x","to":"y"}"# } else { "" };
            for body in [body, ""] {
                let answer = daemon.call(route.method.name(), &endpoint.path(&[name]), body);
                check(&served, endpoint, &answer);
            }
        }
    }
    // What is there is answered as what it is, not by an error.
    for path in ["/v1/containers/web", "/v1/operations", "/v1/checkpoints", "/v1/migrations", "/healthz"] {
        assert_eq!(daemon.call("GET", path, "").status, 200, "{path}");
    }
}

#[test]
fn what_is_not_in_the_table_is_not_there() {
    let daemon = Daemon::start();
    assert_eq!(daemon.call("GET", "/v1/nothing", "").code(), "not-found");
    assert_eq!(daemon.call("PUT", "/healthz", "").code(), "method-not-allowed");
    let metrics = daemon.call("GET", "/metrics", "").text();
    assert!(metrics.contains("fastmig_operations_running 0") && metrics.ends_with("# EOF\n"), "{metrics}");
}

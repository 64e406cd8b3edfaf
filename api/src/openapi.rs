//! The calls as an OpenAPI 3.1 document, made of the table and of the types themselves.

use std::collections::BTreeMap;

use schemars::generate::SchemaSettings;
use schemars::SchemaGenerator;
use serde_json::{json, Map, Value};

use crate::endpoint::{Answer, Endpoint, Route};
use crate::error::{Code, ErrorBody};
use crate::{IDEMPOTENCY_KEY, MAX_KEY};

/// The document.
#[must_use]
pub fn openapi() -> Value {
    let mut generator = SchemaSettings::draft2020_12()
        .with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
        })
        .into_generator();
    let error = generator.subschema_for::<ErrorBody>();
    let mut paths = Map::new();
    for endpoint in Endpoint::ALL {
        let route = endpoint.route();
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.name().to_lowercase()] = call(endpoint, &route, &mut generator);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "fastmigd",
            "description": "The FastMig node daemon. Every operation is answered after it has ended.",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "servers": [{ "url": "/", "description": "the unix socket, or TCP with mutual TLS" }],
        "security": [{ "certificate": [] }, {}],
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "responses": errors(error.as_value()),
            "securitySchemes": { "certificate": {
                "type": "mutualTLS",
                "description": "A client certificate of the cluster's CA; the role stands in it. On the unix socket root needs none.",
            }},
        },
    })
}

fn call(endpoint: Endpoint, route: &Route, generator: &mut SchemaGenerator) -> Value {
    let mut call = json!({
        "operationId": endpoint.id(),
        "summary": route.summary,
        "x-role": route.role,
        "parameters": parameters(route),
        "responses": responses(route, generator),
    });
    if let Some(request) = route.request {
        let content = json!({ "application/json": { "schema": (request.schema)(generator) } });
        call["requestBody"] = json!({ "required": request.required, "content": content });
    }
    call
}

fn parameters(route: &Route) -> Vec<Value> {
    let values = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let text = json!({ "type": "string" });
    let mut parameters: Vec<_> =
        values.map(|name| json!({ "name": name, "in": "path", "required": true, "schema": text })).collect();
    parameters.extend(route.query.iter().map(|query| {
        json!({ "name": query.name, "in": "query", "required": false, "description": query.meaning, "schema": text })
    }));
    if route.operation {
        parameters.push(json!({
            "name": IDEMPOTENCY_KEY, "in": "header", "required": false,
            "description": "The same key never runs twice: the second call is given the first one's answer.",
            "schema": { "type": "string", "minLength": 1, "maxLength": MAX_KEY },
        }));
    }
    parameters
}

fn responses(route: &Route, generator: &mut SchemaGenerator) -> Value {
    let (kind, schema) = match route.answer {
        Answer::Json(schema) => ("application/json", schema(generator).to_value()),
        Answer::AnyJson => ("application/json", json!({ "type": "object" })),
        Answer::Text => ("text/plain", json!({ "type": "string" })),
        // What `schema` describes is the data of each event.
        Answer::Events(schema) => ("text/event-stream", schema(generator).to_value()),
    };
    let mut responses = json!({
        "200": { "description": "done", "content": { kind: { "schema": schema } } },
    });
    for status in statuses().keys() {
        responses[status.to_string()] =
            json!({ "$ref": format!("#/components/responses/{}", name(*status)) });
    }
    responses
}

/// The statuses of failures, and what they mean.
fn statuses() -> BTreeMap<u16, Vec<&'static str>> {
    let mut statuses: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for code in Code::ALL {
        statuses.entry(code.status()).or_default().push(code.meaning());
    }
    statuses
}

fn name(status: u16) -> String {
    format!("Error{status}")
}

fn errors(schema: &Value) -> Value {
    let all = statuses().into_iter().map(|(status, meanings)| {
        let content = json!({ "application/json": { "schema": schema } });
        (name(status), json!({ "description": meanings.join(", or "), "content": content }))
    });
    Value::Object(all.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every `$ref` of the document.
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => map.iter().for_each(|(key, value)| match value.as_str() {
                Some(to) if key == "$ref" => found.push(to.into()),
                _ => references(value, found),
            }),
            Value::Array(all) => all.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn every_call_is_in_it() {
        let document = openapi();
        for endpoint in Endpoint::ALL {
            let route = endpoint.route();
            let call = &document["paths"][route.path][route.method.name().to_lowercase()];
            assert_eq!(call["operationId"], endpoint.id());
            assert!(call["responses"]["200"].is_object());
            assert!(call["responses"]["404"].is_object());
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = openapi();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 100, "{}", found.len());
        for to in found {
            let pointer = to.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{to}");
        }
    }

    #[test]
    fn requests_say_their_bounds_and_refuse_what_they_do_not_know() {
        let document = openapi();
        let migrate = &document["components"]["schemas"]["MigrateRequest"];
        assert_eq!(migrate["additionalProperties"], false);
        assert_eq!(migrate["properties"]["streams"]["maximum"], 16);
        assert_eq!(migrate["properties"]["max_downtime_ms"]["default"], 100);
        assert_eq!(migrate["properties"]["max_rounds"]["maximum"], 1000);
        assert_eq!(migrate["required"], json!(["to"]));
        let body = |path: &str| document["paths"][path]["post"]["requestBody"]["required"].clone();
        assert_eq!(body("/v1/containers/{id}/migrate"), true);
        assert_eq!(body("/v1/containers/{id}/checkpoint"), false);
        assert!(document["components"]["schemas"]["DoneMigrationReport"].is_object());
    }
}

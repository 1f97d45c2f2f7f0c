//! The OpenAPI document, from the table of routes and the types' own schemas.

use super::routes::{Act, ROUTES, Route, Type, Verb};
use proto::api::ApiError;
use serde_json::json;
use std::collections::BTreeMap;
use utoipa::openapi::path::{HttpMethod, Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ArrayBuilder, KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type as JsonType};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, Info, OpenApi, OpenApiBuilder, PathItem, PathsBuilder, Ref, RefOr, Required,
    ResponseBuilder,
};
use utoipa::{PartialSchema, ToSchema};

/// The document as JSON.
pub fn document() -> serde_json::Value {
    serde_json::to_value(build()).unwrap_or_else(|err| json!({ "error": err.to_string() }))
}

fn build() -> OpenApi {
    let mut schemas: BTreeMap<String, RefOr<Schema>> = BTreeMap::new();
    let mut paths: BTreeMap<&str, PathItem> = BTreeMap::new();
    let error = Type { name: ApiError::name, schema: ApiError::schema, others: ApiError::schemas, many: false };
    let error = known(error, &mut schemas);
    for route in &ROUTES {
        let method = match route.verb {
            Verb::Get => HttpMethod::Get,
            Verb::Post => HttpMethod::Post,
            Verb::Delete => HttpMethod::Delete,
        };
        let operation = operation(route, &error, &mut schemas);
        match paths.get_mut(route.path) {
            Some(item) => item.merge_operations(PathItem::new(method, operation)),
            None => {
                paths.insert(route.path, PathItem::new(method, operation));
            }
        }
    }
    let mut all = PathsBuilder::new();
    for (path, item) in paths {
        all = all.path(path, item);
    }
    let cookie = ApiKeyValue::with_description(
        "tsubame_session",
        "Counts on requests other than GET only together with the header `x-tsubame: 1`.",
    );
    let components = ComponentsBuilder::new()
        .schemas_from_iter(schemas)
        .security_scheme("token", SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build()))
        .security_scheme("cookie", SecurityScheme::ApiKey(ApiKey::Cookie(cookie)))
        .build();
    OpenApiBuilder::new()
        .info(Info::new("Tsubame", env!("CARGO_PKG_VERSION")))
        .paths(all.build())
        .components(Some(components))
        .build()
}

fn operation(route: &Route, error: &RefOr<Schema>, schemas: &mut BTreeMap<String, RefOr<Schema>>) -> Operation {
    let answer = known(route.answer, schemas);
    let stream = route.path == "/v1/stream";
    let media = if stream { "text/event-stream" } else { "application/json" };
    let good = ResponseBuilder::new().description("Done or begun.");
    let good = good.content(media, ContentBuilder::new().schema(Some(answer)).build());
    let mut operation = OperationBuilder::new()
        .operation_id(Some(name(route)))
        .summary(Some(route.summary))
        .response("200", good.build());
    let bad = |what: &str| {
        let content = ContentBuilder::new().schema(Some(error.clone())).build();
        ResponseBuilder::new().description(what).content("application/json", content).build()
    };
    operation = operation.response("default", bad("Refused: 400 the request, 401 the session, 404 what it names, 409 the rack's state, 429 too many attempts, 502 a host, 503 the server."));
    if route.path.contains("{id}") {
        operation = operation.parameter(parameter("id", ParameterIn::Path, JsonType::String, "Its id or name."));
    }
    if route.path == "/v1/events" {
        let number = |name, what| parameter(name, ParameterIn::Query, JsonType::Integer, what);
        operation = operation.parameter(number("after", "Events above this number; 0 when absent."));
        operation = operation.parameter(number("limit", "At most so many, 1 to 1000; 100 when absent."));
    }
    if matches!(route.act, Act::File) {
        operation = operation.parameter(parameter(
            "offset",
            ParameterIn::Query,
            JsonType::Integer,
            "The byte at which this part begins; 0 when absent.",
        ));
        let bytes = ObjectBuilder::new()
            .schema_type(JsonType::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary)));
        let content = ContentBuilder::new().schema(Some(bytes.build())).build();
        let body =
            RequestBodyBuilder::new().required(Some(Required::True)).content("application/octet-stream", content);
        operation = operation.request_body(Some(body.build()));
    }
    if let Some(body) = route.body {
        let content = ContentBuilder::new().schema(Some(known(body, schemas))).build();
        let body = RequestBodyBuilder::new().required(Some(Required::True)).content("application/json", content);
        operation = operation.request_body(Some(body.build()));
    }
    if !route.act.is_open() {
        let none: [String; 0] = [];
        operation = operation.security(SecurityRequirement::new("token", none.clone()));
        operation = operation.security(SecurityRequirement::new("cookie", none));
    }
    operation.build()
}

fn parameter(name: &str, place: ParameterIn, kind: JsonType, what: &str) -> Parameter {
    let mut schema = ObjectBuilder::new().schema_type(kind.clone());
    if kind == JsonType::Integer {
        schema = schema.format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)));
    }
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .required(Required::False) // in a path it is always required
        .description(Some(what))
        .schema(Some(schema.build()))
        .build()
}

/// `postVmsMigrate`: method and the path's words.
fn name(route: &Route) -> String {
    let mut name = route.verb.method().as_str().to_ascii_lowercase();
    let path = route.path.trim_start_matches("/v1/").replace(".json", "");
    for word in path.split('/').filter(|word| *word != "{id}") {
        let (first, rest) = word.split_at(1);
        name += &first.to_ascii_uppercase();
        name += rest;
    }
    // A collection and one of it differ by their id only.
    if route.path.ends_with("{id}") { name + "One" } else { name }
}

/// Notes a type's schemas, and gives a reference to it.
fn known(kind: Type, schemas: &mut BTreeMap<String, RefOr<Schema>>) -> RefOr<Schema> {
    let name = (kind.name)().into_owned();
    let mut others = Vec::new();
    (kind.others)(&mut others);
    schemas.extend(others);
    schemas.insert(name.clone(), (kind.schema)());
    let one = RefOr::Ref(Ref::from_schema_name(name));
    if kind.many { RefOr::T(Schema::Array(ArrayBuilder::new().items(one).build())) } else { one }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_route_is_in_the_document_and_nothing_else() {
        let document = document();
        let mut described = BTreeSet::new();
        for (path, item) in document["paths"].as_object().expect("paths") {
            described.extend(item.as_object().expect("methods").keys().map(|m| format!("{} {path}", m.to_uppercase())));
        }
        let routes: BTreeSet<_> = ROUTES.iter().map(|r| format!("{} {}", r.verb.method(), r.path)).collect();
        assert_eq!(described, routes);
        let mut ids = BTreeSet::new();
        assert!(ROUTES.iter().all(|r| ids.insert(name(r))), "operation ids are unique");
    }

    /// Every reference leads somewhere, and everything there is referred to.
    #[test]
    fn references_are_closed() {
        fn walk(value: &serde_json::Value, found: &mut BTreeSet<String>) {
            match value {
                serde_json::Value::Object(fields) => {
                    if let Some(serde_json::Value::String(to)) = fields.get("$ref") {
                        found.insert(to.trim_start_matches("#/components/schemas/").to_owned());
                    }
                    fields.values().for_each(|v| walk(v, found));
                }
                serde_json::Value::Array(items) => items.iter().for_each(|v| walk(v, found)),
                _ => {}
            }
        }
        let document = document();
        let mut found = BTreeSet::new();
        walk(&document, &mut found);
        let there: BTreeSet<String> =
            document["components"]["schemas"].as_object().expect("schemas").keys().cloned().collect();
        assert_eq!(found, there);
    }
}

//! The API's own description, made from the calls themselves: a call that is routed is described.

use std::sync::{Arc, LazyLock};

use axum::{Router, http::header, response::IntoResponse};
use utoipa::{
    OpenApi,
    openapi::{
        ContentBuilder, PathItem, Ref, RefOr, Response, ResponseBuilder,
        path::Operation,
        security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
    },
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    api::Api, cases, catalogue, dead_letters, problem::Problem, replays, subscribers, test_delivery,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "hookbridge",
        description = "Subscribers, case hooks, dead letters and replays of a hookbridge.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    tags(
        (name = "subscribers", description = "Who gets webhooks, and where they go"),
        (name = "cases", description = "Case Settings: a case's own hook"),
        (name = "dead letters", description = "What failed for good"),
        (name = "replays", description = "Dead letters on their way again"),
        (name = "catalogue", description = "What there is to subscribe to"),
    ),
    components(schemas(Problem))
)]
struct Description;

/// The name of the one security scheme.
const TOKEN: &str = "token";

/// What every call below `/v1` may answer.
const ALWAYS: [(u16, &str); 4] = [
    (400, "A parameter or a header is wrong"),
    (401, "No token, or a wrong one"),
    (403, "No token is configured, or the token may only read"),
    (429, "Too many requests: wait as long as `retry-after` says"),
];
/// What a call with a body may answer besides.
const WITH_BODY: [(u16, &str); 4] = [
    (408, "The body did not arrive in time"),
    (413, "The body is too large"),
    (415, "The body is not JSON"),
    (
        422,
        "The body breaks a rule: every field that does is named",
    ),
];

/// Every call, and their description.
pub(super) fn routes() -> (Router<Arc<Api>>, utoipa::openapi::OpenApi) {
    let (router, mut description) = OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(subscribers::list))
        .routes(routes!(
            subscribers::get,
            subscribers::put,
            subscribers::patch,
            subscribers::delete
        ))
        .routes(routes!(test_delivery::test))
        .routes(routes!(cases::get, cases::put, cases::delete))
        .routes(routes!(dead_letters::list, dead_letters::delete))
        .routes(routes!(dead_letters::get))
        .routes(routes!(replays::begin))
        .routes(routes!(replays::list))
        .routes(routes!(replays::get))
        .routes(routes!(replays::stop))
        .routes(routes!(catalogue::webhook_types))
        .routes(routes!(openapi))
        .split_for_parts();
    for (path, item) in &mut description.paths.paths {
        for operation in operations(item) {
            if path.starts_with("/v1/") {
                complete(operation);
            }
        }
    }
    if let Some(components) = &mut description.components {
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        components.add_security_scheme(TOKEN, SecurityScheme::Http(bearer));
    }
    (router, description)
}

/// The description.
pub fn document() -> utoipa::openapi::OpenApi {
    routes().1
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [
        &mut item.get,
        &mut item.put,
        &mut item.post,
        &mut item.patch,
        &mut item.delete,
    ]
    .into_iter()
    .filter_map(Option::as_mut)
}

/// Adds what all calls have in common.
fn complete(operation: &mut Operation) {
    let token = SecurityRequirement::new(TOKEN, Vec::<String>::new());
    operation.security = Some(vec![token]);
    let with_body = if operation.request_body.is_some() {
        &WITH_BODY[..]
    } else {
        &[]
    };
    for (status, words) in ALWAYS.iter().chain(with_body) {
        let responses = &mut operation.responses.responses;
        responses
            .entry(status.to_string())
            .or_insert_with(|| RefOr::T(problem(words)));
    }
}

fn problem(words: &str) -> Response {
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name("Problem")))
        .build();
    ResponseBuilder::new()
        .description(words)
        .content("application/problem+json", content)
        .build()
}

/// The API's own description, as `OpenAPI`. It needs no token.
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "catalogue",
    responses((status = 200, description = "The description", body = Object))
)]
async fn openapi() -> impl IntoResponse {
    // It never changes, and whoever asks needs no token: it is made once.
    static TEXT: LazyLock<String> = LazyLock::new(|| document().to_json().unwrap_or_default());
    ([(header::CONTENT_TYPE, "application/json")], TEXT.as_str())
}

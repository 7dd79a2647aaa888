//! `/openapi.json`: this API, described by the table that serves it.

use crate::openapi::document;
use axum::Json;

/// The OpenAPI 3.1 document.
pub(crate) async fn openapi() -> Json<serde_json::Value> {
    Json(document())
}

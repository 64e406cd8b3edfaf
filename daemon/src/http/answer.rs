//! JSON, or why not.

use axum::http::{header, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::Json;
use fastmig_api::{ErrorBody, ErrorInfo};
use serde::Serialize;

/// What was asked for.
pub(super) fn json<T: Serialize>(value: &T) -> Response {
    Json(value).into_response()
}

/// Why not.
pub(super) fn error(error: ErrorInfo) -> Response {
    let status = StatusCode::from_u16(error.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, Json(ErrorBody::from(error))).into_response()
}

/// Text of this type.
pub(super) fn text(content_type: &'static str, text: String) -> Response {
    ([(header::CONTENT_TYPE, content_type)], text).into_response()
}

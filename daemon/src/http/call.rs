//! What was asked, within bounds, and by whom.

use std::collections::HashMap;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Query, RawPathParams, Request};
use axum::http::HeaderMap;
use axum::RequestExt;
use fastmig_api::{Code, Endpoint, ErrorInfo, Role, IDEMPOTENCY_KEY, MAX_KEY, MAX_REQUEST};
use http_body_util::{BodyExt, Limited};
use sha2::{Digest, Sha256};

use crate::pki::certificate::Caller;
use crate::pki::role::Role as Owned;

/// A whole body must have come within this time.
const BODY_LIMIT: Duration = Duration::from_secs(10);

/// One call.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) caller: Caller,
    /// The value in the path.
    value: String,
    query: HashMap<String, String>,
    pub(super) key: Option<String>,
    pub(super) body: Bytes,
    /// Digest of what was asked and by whom.
    pub(super) fingerprint: String,
}

impl Call {
    /// Reads a request whose caller may ask for it.
    pub(super) async fn read(endpoint: Endpoint, mut request: Request) -> Result<Self, ErrorInfo> {
        let route = endpoint.route();
        let caller = request.extensions().get::<Caller>().cloned();
        let caller = caller.ok_or_else(|| ErrorInfo::new(Code::Unauthenticated, "nobody is known here"))?;
        require(&caller, route.role)?;
        let query = query(&endpoint, &mut request).await?;
        let params = request.extract_parts::<RawPathParams>().await;
        let params = params.map_err(|e| bad(format!("the path is not understood: {e}")))?;
        let value = params.iter().next().map(|(_, value)| value.to_owned()).unwrap_or_default();
        let key = if route.operation { key(request.headers())? } else { None };
        let target = request.uri().to_string();
        let body = read_body(request).await?;
        let fingerprint = fingerprint(&[route.method.name(), &target, &caller.name], &body);
        Ok(Self { caller, value, query, key, body, fingerprint })
    }

    /// The container, checkpoint, operation or migration in the path.
    pub(super) fn name(&self) -> &str {
        &self.value
    }

    /// A query parameter.
    pub(super) fn query(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }

    /// How many at most.
    pub(super) fn limit(&self) -> Result<usize, ErrorInfo> {
        self.query("limit")
            .map_or(Ok(100), |limit| limit.parse().map_err(|_| bad(format!("limit: {limit:?} is no number"))))
    }

    /// Refuses who may do less than `role`.
    pub(super) fn require(&self, role: Role) -> Result<(), ErrorInfo> {
        require(&self.caller, role)
    }
}

fn require(caller: &Caller, needed: Role) -> Result<(), ErrorInfo> {
    let granted = match caller.role {
        Owned::Reader => Role::Read,
        Owned::Operator => Role::Checkpoint,
        Owned::Node => Role::Migrate,
        Owned::Admin => Role::Admin,
    };
    if granted >= needed {
        return Ok(());
    }
    let text = format!("{} is a {} and may not do this", caller.name, caller.role);
    let remedy = match needed {
        Role::Read | Role::Checkpoint => "ask with a certificate of the role operator or admin",
        Role::Migrate | Role::Admin => "ask with a certificate of the role admin",
    };
    Err(ErrorInfo::new(Code::Forbidden, text).with_remedy(remedy))
}

/// An unknown parameter is refused, so that a misspelt wish is never silently forgotten.
async fn query(endpoint: &Endpoint, request: &mut Request) -> Result<HashMap<String, String>, ErrorInfo> {
    let query = request.extract_parts::<Query<HashMap<String, String>>>().await;
    let Query(query) = query.map_err(|e| bad(format!("the query is not understood: {e}")))?;
    let known = endpoint.route().query;
    match query.keys().find(|name| known.iter().all(|known| known.name != name.as_str())) {
        Some(unknown) => Err(bad(format!("this call has no parameter {unknown:?}"))),
        None => Ok(query),
    }
}

fn key(headers: &HeaderMap) -> Result<Option<String>, ErrorInfo> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    match value.to_str() {
        Ok(key) if (1..=MAX_KEY).contains(&key.len()) => Ok(Some(key.to_owned())),
        _ => Err(bad(format!("{IDEMPOTENCY_KEY}: not 1 to {MAX_KEY} printable ASCII characters"))),
    }
}

async fn read_body(request: Request) -> Result<Bytes, ErrorInfo> {
    let collect = Limited::new(request.into_body(), MAX_REQUEST).collect();
    let body = tokio::time::timeout(BODY_LIMIT, collect).await.map_err(|_| {
        ErrorInfo::new(Code::TimeLimit, format!("the request was not whole after {} s", BODY_LIMIT.as_secs()))
    })?;
    body.map(http_body_util::Collected::to_bytes).map_err(|e| {
        if e.is::<http_body_util::LengthLimitError>() {
            return ErrorInfo::new(Code::TooLarge, format!("the request has more than {MAX_REQUEST} bytes"));
        }
        bad(format!("the request cannot be read: {e}"))
    })
}

fn fingerprint(words: &[&str], body: &[u8]) -> String {
    let mut digest = Sha256::new();
    for word in words {
        digest.update(word);
        digest.update([0]);
    }
    digest.update(body);
    hex::encode(digest.finalize())
}

fn bad(message: String) -> ErrorInfo {
    ErrorInfo::new(Code::BadRequest, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_may_what_it_should() {
        for (role, granted) in [
            (Owned::Reader, vec![Role::Read]),
            (Owned::Operator, vec![Role::Read, Role::Checkpoint]),
            (Owned::Node, vec![Role::Read, Role::Checkpoint, Role::Migrate]),
            (Owned::Admin, vec![Role::Read, Role::Checkpoint, Role::Migrate, Role::Admin]),
        ] {
            let caller = Caller { name: "x".into(), role };
            for needed in [Role::Read, Role::Checkpoint, Role::Migrate, Role::Admin] {
                assert_eq!(require(&caller, needed).is_ok(), granted.contains(&needed), "{role} {needed:?}");
            }
        }
    }
}

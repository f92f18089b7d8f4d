//! The quarantine over the node's HTTP, for `skerry quarantine` on the same machine. It shows what
//! records hold, and a decision changes what the cluster gets, so others are refused, be the port
//! open to them or not.

use super::{Decision, carry_out, find, list};
use crate::http::from_here;
use crate::view::View;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::middleware;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use serde::Serialize;
use skerry_store::{Error, Log};
use std::sync::Arc;

pub fn routes() -> Router<Arc<View>> {
    Router::new()
        .route("/quarantine", get(waiting).post(settle))
        .route("/quarantine/all", get(all))
        .route("/quarantine/{id}", get(one))
        .layer(middleware::from_fn(from_here))
}

async fn waiting(State(view): State<Arc<View>>) -> Response {
    reading(&view.log, |log| list(&log, false)).await
}

async fn all(State(view): State<Arc<View>>) -> Response {
    reading(&view.log, |log| list(&log, true)).await
}

async fn one(State(view): State<Arc<View>>, Path(id): Path<u64>) -> Response {
    reading(&view.log, move |log| find(&log, id)).await
}

/// Takes JSON and nothing else, which no page in a browser can send here unasked.
async fn settle(State(view): State<Arc<View>>, Json(decision): Json<Decision>) -> Response {
    answer(carry_out(&view.log, decision).await)
}

async fn reading<T: Serialize + Send + 'static>(
    log: &Log,
    read: impl FnOnce(Log) -> Result<T, Error> + Send + 'static,
) -> Response {
    let log = log.clone();
    let read = tokio::task::spawn_blocking(move || read(log)).await;
    answer(read.unwrap_or(Err(Error::Closed)))
}

fn answer<T: Serialize>(result: Result<T, Error>) -> Response {
    match result {
        Ok(value) => Json(value).into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    }
}

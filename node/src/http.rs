//! The node's own HTTP: `/healthz`, `/readyz`, `/metrics` and `/status`, for the supervisor, for
//! Prometheus and for `skerry status`, and `POST /log/scrub` for `skerry log repair`. On loopback
//! unless configured otherwise; nobody can change a record by it.

use crate::logs::Answer;
use crate::metrics;
use crate::view::View;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Serves `listener` until `stop`.
pub async fn serve(
    listener: TcpListener,
    view: Arc<View>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(prometheus))
        .route("/status", get(status))
        .route("/log/scrub", post(scrub))
        .with_state(view);
    axum::serve(listener, routes)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

/// Liveness means progress: 503 once work has waited for half a minute without a commit.
async fn healthz(State(view): State<Arc<View>>) -> impl IntoResponse {
    answer(view.health())
}

/// Readiness: 503 until devices can connect, while the disk refuses, and once stopping.
async fn readyz(State(view): State<Arc<View>>) -> impl IntoResponse {
    answer(view.readiness())
}

fn answer(verdict: Result<(), String>) -> (StatusCode, String) {
    match verdict {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

async fn prometheus(State(view): State<Arc<View>>) -> impl IntoResponse {
    const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
    (
        [(header::CONTENT_TYPE, TEXT)],
        metrics::render(&view.status()),
    )
}

async fn status(State(view): State<Arc<View>>) -> impl IntoResponse {
    Json(view.status())
}

/// Reads the whole log for damage, one at a time: 409 while another is under way. Ends early when
/// whoever asked goes away.
async fn scrub(State(view): State<Arc<View>>) -> Response {
    let Ok(_alone) = view.scrubbing.try_lock() else {
        let why = "a scrub is under way already: wait for its end\n";
        return (StatusCode::CONFLICT, why).into_response();
    };
    match view.log.scrub().await {
        Ok(scrub) => {
            let epoch = format!("{:016x}", view.log.epoch());
            Json(Answer { epoch, scrub }).into_response()
        }
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    }
}

//! The node's own HTTP: `/healthz`, `/readyz`, `/metrics` and `/status`, for the supervisor, for
//! Prometheus and for `skerry status`. Read-only, and on loopback unless configured otherwise.

use crate::metrics;
use crate::view::View;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json};
use axum::routing::get;
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

//! The node's own HTTP: `/healthz`, `/readyz`, `/metrics` and `/status`, for the supervisor, for
//! Prometheus and for `skerry status`, `POST /log/scrub` for `skerry log repair`, `/uplink/…` for
//! `skerry uplink`, `/quarantine` for `skerry quarantine` and `/models` for `skerry model`. On
//! loopback unless configured otherwise, and the last two always; nobody can change a record by it.

use crate::logs::Answer;
use crate::metrics;
use crate::model;
use crate::quarantine;
use crate::uplink::{Chosen, Released};
use crate::view::View;
use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use skerry_bridge::uplink;
use skerry_store::{Offset, StreamName};
use std::net::SocketAddr;
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
        .route("/uplink/link", get(link).post(choose_link))
        .route("/uplink/release", post(release))
        .merge(quarantine::routes())
        .merge(model::routes())
        .with_state(view)
        .into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, routes)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

/// Refuses whoever is not on this machine, be the port open to them or not.
pub async fn from_here(
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    match peer.ip().to_canonical().is_loopback() {
        true => next.run(request).await,
        false => (StatusCode::FORBIDDEN, "from the node's own machine only\n").into_response(),
    }
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

/// Lets a stream that is held because its disk is an image or a copy go on.
async fn release(State(view): State<Arc<View>>, body: String) -> Response {
    let bad = |why: String| (StatusCode::BAD_REQUEST, format!("{why}\n")).into_response();
    let Ok(wanted) = serde_json::from_str::<Released>(&body) else {
        return bad("say which stream: {\"stream\":\"…\"}".to_owned());
    };
    let known = StreamName::new(&wanted.stream).ok();
    let known = known.filter(|stream| view.log.streams().contains(stream));
    let Some(stream) = known else {
        return bad(format!("there is no stream `{}`", wanted.stream));
    };
    if !view.is_held(&stream) {
        let why = format!("`{}` is not held, and goes on by itself", wanted.stream);
        return (StatusCode::CONFLICT, why + "\n").into_response();
    }
    match uplink::release(&view.log, &stream, wanted.from.map(Offset)).await {
        Ok(from) => {
            tracing::warn!(%stream, %from, "a held stream was released by command");
            let from = Some(from.0);
            Json(Released { from, ..wanted }).into_response()
        }
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    }
}

/// The link class in force, why, and those that can be chosen; 404 where nothing leaves the site.
async fn link(State(view): State<Arc<View>>) -> Response {
    match &view.links {
        Some(links) => Json(Chosen::by(links)).into_response(),
        None => (StatusCode::NOT_FOUND, "the config has no [kafka]\n").into_response(),
    }
}

/// Takes the class that the body names, until told otherwise; `auto` leaves the choice to the
/// node. 400, with the names that there are, for another one.
async fn choose_link(State(view): State<Arc<View>>, body: String) -> Response {
    let chosen = view.links.as_ref().map(|links| links.command(body.trim()));
    match chosen {
        Some(Err(unknown)) => (StatusCode::BAD_REQUEST, format!("{unknown}\n")).into_response(),
        Some(Ok(())) => {
            tracing::info!(class = body.trim(), "a link class was chosen by command");
            link(State(view)).await
        }
        None => link(State(view)).await,
    }
}

//! The API's routes, and what stands before each of them: who asks, what they may, and how often.

use std::{pin::Pin, sync::Arc};

use axum::{
    Router,
    extract::{Request, State},
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::{auth::Caller, door::Door, openapi, problem::Problem, rates::Rates, serve::Peer};
use crate::{
    delivery::{Delivery, Outcome},
    registry::Registry,
    replay::Replays,
    store::Store,
    subscriber::{Subscriber, SubscriberId, loading::Rules},
    telemetry::{
        metrics::Worst,
        notices::{Notices, Refused},
        status::Status,
    },
};

/// How many test deliveries may be under way.
const TESTS: usize = 16;

/// Makes one attempt of a delivery, now; the error says why that is not possible.
pub type Attempt = dyn Fn(Arc<Subscriber>, Delivery) -> Attempting + Send + Sync;
/// An attempt under way.
pub type Attempting = Pin<Box<dyn Future<Output = Result<Outcome, String>> + Send>>;
/// How a subscriber's deliveries fare.
pub type StatusOf = dyn Fn(&SubscriberId) -> Option<Status> + Send + Sync;

/// What the API reaches of the rest of the bridge.
pub struct Handles {
    /// Who is subscribed.
    pub registry: Registry,
    /// Replays of dead letters; there if there is a store.
    pub replays: Option<Replays>,
    /// What subscribers are held to.
    pub rules: Rules,
    /// Sends a test.
    pub attempt: Box<Attempt>,
    /// Asks how a subscriber fares.
    pub status: Box<StatusOf>,
    /// Asks who fails most.
    pub worst: Arc<Worst>,
    /// Hears who is refused.
    pub notices: Arc<Notices>,
}

/// What every call shares.
pub(super) struct Api {
    pub(super) handles: Handles,
    pub(super) tests: Semaphore,
    door: Arc<Door>,
    rates: Rates,
    /// Changes under way.
    changes: TaskTracker,
}

impl Api {
    /// The store, or the problem that there is none.
    pub(super) fn store(&self) -> Result<&Store, Problem> {
        self.handles.registry.store().ok_or_else(Problem::no_store)
    }

    /// The replays, or the problem that there is no store.
    pub(super) fn replays(&self) -> Result<&Replays, Problem> {
        self.handles.replays.as_ref().ok_or_else(Problem::no_store)
    }

    /// The subscriber with this id. One that was made through another bridge just now is found, too.
    /// The problem is that it cannot be told whether there is one.
    pub(super) async fn subscriber(&self, id: &str) -> Result<Option<Arc<Subscriber>>, Problem> {
        Ok(self.handles.registry.find(&SubscriberId::new(id)).await?)
    }

    pub(super) fn status(&self, id: &SubscriberId) -> Status {
        (self.handles.status)(id).unwrap_or_default()
    }
}

/// `probes` and the API.
pub(super) fn router(probes: Router, handles: Handles, door: Arc<Door>) -> Router {
    let api = Arc::new(Api {
        handles,
        door,
        tests: Semaphore::new(TESTS),
        rates: Rates::default(),
        changes: TaskTracker::new(),
    });
    let (routes, _) = openapi::routes();
    probes
        .merge(routes.with_state(api.clone()))
        .fallback(async || {
            Problem::not_found("there is nothing at this address: see /openapi.json")
        })
        .method_not_allowed_fallback(async || {
            Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method-not-allowed",
                "Method not allowed",
                "this address does not take this method: see the allow header",
            )
        })
        .layer(middleware::from_fn_with_state(api, guard))
}

/// Lets nobody past who has no token, may not do this, or asks too often.
async fn guard(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if path != "/v1" && !path.starts_with("/v1/") {
        return next.run(request).await;
    }
    match api.admit(&request) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            if request.method().is_safe() {
                return next.run(request).await;
            }
            // A client that goes away must not leave a change half made: in the store, and told to
            // nobody.
            let change = api.changes.spawn(next.run(request));
            match change.await {
                Ok(response) => response,
                Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            }
        }
        Err(problem) => problem.into_response(),
    }
}

impl Api {
    /// Who asks, if they may. Who is refused is said.
    fn admit(&self, request: &Request) -> Result<Caller, Problem> {
        let caller = match self.door.tokens().caller(request.headers()) {
            Ok(caller) => caller,
            Err(problem) => {
                let problem = self.rates.take(None).err().unwrap_or(problem);
                return Err(self.refused(request, None, problem));
            }
        };
        let allowed = self.rates.take(Some(&caller));
        match allowed.and_then(|()| caller.may(request.method())) {
            Ok(()) => Ok(caller),
            Err(problem) => Err(self.refused(request, Some(caller), problem)),
        }
    }

    /// Has it said who is refused, and nothing of what they sent.
    fn refused(&self, request: &Request, caller: Option<Caller>, problem: Problem) -> Problem {
        let peer = request.extensions().get::<Peer>();
        self.handles.notices.refused(Refused {
            from: peer.map(|peer| peer.0),
            by: caller.map(|caller| caller.name),
            status: problem.status(),
            why: problem.detail().to_owned(),
        });
        problem
    }
}

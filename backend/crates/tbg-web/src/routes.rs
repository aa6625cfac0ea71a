//! How a domain hands its routes over: each with its auth class.
//!
//! There is no way to add a route without naming one, so a forgotten check does not compile. The class is
//! enforced by a layer on the route and written into the OpenAPI document (`security`, `x-auth-class`, and
//! the errors that every route can answer), from which the access matrix is tested.

use axum::middleware::from_fn;
use axum::routing::MethodRouter;
use utoipa::openapi::extensions::ExtensionsBuilder;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Required, Response, ResponseBuilder};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

use crate::auth::{Class, enforce};

/// The routes of a domain.
pub struct Routes<S = ()>(OpenApiRouter<S>);

impl<S: Clone + Send + Sync + 'static> Default for Routes<S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    /// No routes yet.
    #[must_use]
    pub fn new() -> Self {
        Self(OpenApiRouter::new())
    }

    /// For everybody; credentials are ignored.
    #[must_use]
    pub fn public(self, routes: UtoipaMethodRouter<S>) -> Self {
        self.add(Class::None, routes)
    }

    /// For everybody, but a credential that is sent must be good.
    #[must_use]
    pub fn optional(self, routes: UtoipaMethodRouter<S>) -> Self {
        self.add(Class::Optional, routes)
    }

    /// For users, by access token or API key.
    #[must_use]
    pub fn user(self, routes: UtoipaMethodRouter<S>) -> Self {
        self.add(Class::User, routes)
    }

    /// For users, by access token only.
    #[must_use]
    pub fn session(self, routes: UtoipaMethodRouter<S>) -> Self {
        self.add(Class::Session, routes)
    }

    /// For administrators.
    #[must_use]
    pub fn admin(self, routes: UtoipaMethodRouter<S>) -> Self {
        self.add(Class::Admin, routes)
    }

    /// A route that the document does not show, such as a socket.
    #[must_use]
    pub fn hidden(self, class: Class, path: &str, methods: MethodRouter<S>) -> Self {
        Self(self.0.route(path, guard(class, methods)))
    }

    /// Both.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        Self(self.0.merge(other.0))
    }

    /// Gives the handlers their state.
    #[must_use]
    pub fn with_state<S2: Clone + Send + Sync + 'static>(self, state: S) -> Routes<S2> {
        Routes(self.0.with_state(state))
    }

    pub(crate) fn into_inner(self) -> OpenApiRouter<S> {
        self.0
    }

    fn add(self, class: Class, (schemas, mut paths, methods): UtoipaMethodRouter<S>) -> Self {
        for item in paths.paths.values_mut() {
            operations(item).for_each(|operation| describe(operation, class));
        }
        Self(self.0.routes((schemas, paths, guard(class, methods))))
    }
}

fn guard<S: Clone + Send + Sync + 'static>(class: Class, methods: MethodRouter<S>) -> MethodRouter<S> {
    methods.route_layer(from_fn(move |request, next| async move { enforce(class, request, next).await }))
}

/// How a handler says that its body may be left out: `Option<T>` in the document would admit `null` too.
const OPTIONAL_BODY: &str = "x-optional-body";

/// The errors that come from the house: status, name in the document, words.
const ERRORS: [(&str, &str, &str); 11] = [
    ("401", "Unauthorized", "No credential, or not a good one"),
    ("403", "Forbidden", "Not for this credential, or not from this origin"),
    ("408", "RequestTimeout", "The body did not arrive in time"),
    ("413", "PayloadTooLarge", "The body is too large"),
    ("414", "UriTooLong", "Path and query are too long"),
    ("415", "UnsupportedMediaType", "The body is not application/json"),
    ("422", "ValidationError", "The request breaks a rule"),
    ("429", "RateLimited", "Too many requests"),
    ("431", "HeadersTooLarge", "The headers are too large"),
    ("500", "Internal", "A fault of ours"),
    ("503", "Unavailable", "Something that we need is away"),
];

/// The same as components of the document.
pub(crate) fn error_responses() -> impl Iterator<Item = (&'static str, Response)> {
    ERRORS.into_iter().map(|(_, name, description)| {
        let body = ContentBuilder::new().schema(Some(Ref::from_schema_name("ErrorBody"))).build();
        (name, ResponseBuilder::new().description(description).content("application/json", body).build())
    })
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete].into_iter().flatten()
}

fn describe(operation: &mut Operation, class: Class) {
    let scheme = |name: &str| SecurityRequirement::new(name, Vec::<String>::new());
    operation.security = match class {
        Class::None => Some(Vec::new()),
        Class::Optional => Some(vec![SecurityRequirement::default(), scheme("bearer"), scheme("api_key")]),
        Class::User => Some(vec![scheme("bearer"), scheme("api_key")]),
        Class::Session | Class::Admin => Some(vec![scheme("bearer")]),
    };
    let word = serde_json::to_value(class).unwrap_or_default();
    let class_of_route = ExtensionsBuilder::new().add("x-auth-class", word).build();
    operation.extensions.get_or_insert_default().merge(class_of_route);

    let has_body = operation.request_body.is_some();
    let is_optional = operation.extensions.as_ref().is_some_and(|all| all.contains_key(OPTIONAL_BODY));
    if let Some(RefOr::T(body)) = operation.request_body.as_mut().filter(|_| is_optional) {
        body.required = Some(Required::False);
    }
    let statuses = ERRORS.into_iter().filter(|(status, ..)| match *status {
        "401" => class != Class::None,
        "408" | "415" => has_body,
        _ => true,
    });
    for (status, name, _) in statuses {
        operation
            .responses
            .responses
            .entry(status.to_owned())
            .or_insert_with(|| RefOr::Ref(Ref::from_response_name(name)));
    }
}

//! One translation after the other, each with what has not changed from the one before.
//!
//! What follows from a Service follows from it, its slices and the workloads; what follows
//! from a route, from it and nearly everything else. So the outcomes of routes hold for as
//! long as all of that is the same ([`UNREAD_BY_ROUTES`]), and are made anew together: the
//! objects of a cluster that change every second are EndpointSlices and routes, and no
//! route reads them. Gateways and policies are few and are always made anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use isthmus_model::{Resource, Service, ServiceKey};

use crate::context::{Context, IngressContext};
use crate::kind::{Kind, ObjectKey};
use crate::objects::{HttpRoute, Objects, StreamRoute};
use crate::translate::kept::Kept;
use crate::translate::outcome::{RouteOutcome, Surroundings, Users};
use crate::translate::services::{self, Services};
use crate::translate::{Translation, backend_tls, gateways, links, routes, streams};

/// Translates one state after the other.
///
/// A translation depends on its arguments alone and never on those before: they decide only
/// which of its resources are the same pointers as before. What is kept is the last state
/// and what was made of it.
#[derive(Debug, Default)]
pub struct Translator {
    services: Services,
    routes: Routes,
}

impl Translator {
    /// Translates a state.
    pub fn translate(&mut self, objects: &Objects, context: &Context) -> Translation {
        let mut out = Translation::default();
        self.services.translate(objects, context, &mut out);
        services::conditions(objects, &mut out.conditions);
        links::conditions(objects, context, &mut out.conditions);
        let gateways = gateways::translate(objects, context, &mut out);
        set_generations(objects, &mut out, 0);
        self.routes.turn(Surroundings { objects, context, gateways: &gateways });
        self.routes.outcomes().for_each(|outcome| outcome.add_to(&mut out));
        let users = Users::new(&backend_tls::targets(objects), self.routes.outcomes());
        let of_policies = out.conditions.len();
        backend_tls::translate(objects, &users, &mut out);
        set_generations(objects, &mut out, of_policies);
        for policy in objects.peer_authentications.values() {
            let policy = Resource::PeerAuthentication(policy.as_ref().clone());
            out.resources.push(policy.into());
        }
        out
    }
}

/// The conditions of a translation from the first that has no generation yet.
fn set_generations(objects: &Objects, out: &mut Translation, first: usize) {
    for condition in out.conditions.iter_mut().skip(first) {
        condition.observed_generation = objects.generation(&condition.object);
    }
}

/// The routes of one state after the other.
#[derive(Debug, Default)]
struct Routes {
    grpc: Kept<HttpRoute, RouteOutcome>,
    http: Kept<HttpRoute, RouteOutcome>,
    tcp: Kept<StreamRoute, RouteOutcome>,
    tls: Kept<StreamRoute, RouteOutcome>,
    udp: Kept<StreamRoute, RouteOutcome>,
    before: Option<Before>,
}

/// What the outcomes of routes were made from besides the routes.
#[derive(Debug)]
struct Before {
    objects: Objects,
    imports: BTreeMap<ServiceKey, Service>,
    ingress: IngressContext,
}

impl Before {
    fn is_same(&self, objects: &Objects, context: &Context) -> bool {
        let mut read = Kind::ALL.into_iter().filter(|kind| !UNREAD_BY_ROUTES.contains(kind));
        read.all(|kind| self.objects.is_same(objects, kind))
            && self.imports == context.imports
            && self.ingress == context.ingress
    }
}

impl Routes {
    /// Takes a state.
    fn turn(&mut self, around: Surroundings<'_>) {
        let Surroundings { objects, context, .. } = around;
        let before = self.before.take().filter(|before| before.is_same(objects, context));
        let known = before.as_ref();
        let http = |route: &HttpRoute| routes::translate(around, route);
        let stream = |route: &StreamRoute| streams::translate(around, route);
        turn(&mut self.grpc, (Kind::GrpcRoute, &objects.grpc_routes), objects, known, http);
        turn(&mut self.http, (Kind::HttpRoute, &objects.http_routes), objects, known, http);
        turn(&mut self.tcp, (Kind::TcpRoute, &objects.tcp_routes), objects, known, stream);
        turn(&mut self.tls, (Kind::TlsRoute, &objects.tls_routes), objects, known, stream);
        turn(&mut self.udp, (Kind::UdpRoute, &objects.udp_routes), objects, known, stream);
        self.before = Some(match before {
            Some(before) => Before { objects: objects.clone(), ..before },
            None => Before {
                objects: objects.clone(),
                imports: context.imports.clone(),
                ingress: context.ingress.clone(),
            },
        });
    }

    /// What came of every route, in order of kind and name.
    fn outcomes(&self) -> impl Iterator<Item = &RouteOutcome> {
        let http = self.http.outcomes().chain(self.grpc.outcomes());
        let stream = self.tcp.outcomes().chain(self.tls.outcomes()).chain(self.udp.outcomes());
        http.chain(stream)
    }
}

/// The routes of one kind. `before` is what their outcomes were made from, where it holds.
fn turn<V>(
    kept: &mut Kept<V, RouteOutcome>,
    (kind, routes): (Kind, &BTreeMap<ObjectKey, Arc<V>>),
    objects: &Objects,
    before: Option<&Before>,
    make: impl Fn(&V) -> RouteOutcome,
) {
    let generations = &objects.generations;
    let same = before.is_some_and(|it| it.objects.generations.is_same(generations, kind));
    // A new generation of an equal route changes what its conditions say.
    let has_generation =
        |outcome: &RouteOutcome| outcome.generation == objects.generation(&outcome.object);
    let is_current =
        |_: &V, outcome: &RouteOutcome| before.is_some() && (same || has_generation(outcome));
    kept.turn(routes, is_current, |route, before| {
        let mut outcome = make(route);
        let before = before.and_then(|before| before.resource);
        outcome.resource = outcome.resource.map(|resource| resource.or_same(before));
        outcome
    });
}

/// The kinds that no route reads when it is translated. A kind that is not here counts as
/// read, which can cost time and nothing else.
const UNREAD_BY_ROUTES: [Kind; 6] = [
    Kind::EndpointSlice,
    Kind::GrpcRoute,
    Kind::HttpRoute,
    Kind::TcpRoute,
    Kind::TlsRoute,
    Kind::UdpRoute,
];

#[cfg(test)]
mod tests;

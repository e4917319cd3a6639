//! Raw objects to validated ones. The first broken rule is reported, with the path of
//! its field.
//!
//! The rules are those of the published CRDs and of the Kubernetes API server, so that
//! what is taken here is taken there. They are applied here as well because a directory
//! has no API server.

mod backend_tls;
mod core;
mod gateway;
pub(crate) mod mesh;
mod parameters;
mod route;
mod values;

use isthmus_model::StreamRouteKind;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::error::{At, FieldError, Reason};
use crate::kind::{Kind, ObjectKey, ObjectRef};
use crate::objects::Object;
use crate::raw::document::{DEFAULT_NAMESPACE, Schema, fields};
use crate::raw::metadata::Metadata;
use crate::raw::route::stream::RawStreamRoute as StreamRaw;

/// Validates an object. `first_seen` is its creation time when it does not say one;
/// `schema` says what is made of fields that are not known.
pub(crate) fn validate(
    reference: &ObjectRef,
    value: &Value,
    first_seen: i64,
    schema: Schema,
) -> Result<Object, FieldError> {
    let kind = reference.kind;
    match kind {
        Kind::BackendTlsPolicy => {
            backend_tls::backend_tls_policy(fields(kind, value, schema)?, first_seen)
                .map(Object::BackendTlsPolicy)
        }
        Kind::ClusterLink => {
            mesh::cluster_link(fields(kind, value, schema)?, first_seen).map(Object::ClusterLink)
        }
        Kind::ClusterProperty => mesh::cluster_property(fields(kind, value, schema)?, first_seen)
            .map(Object::ClusterProperty),
        Kind::ConfigMap => {
            core::config_map(fields(kind, value, schema)?, first_seen).map(Object::ConfigMap)
        }
        Kind::EndpointSlice => core::endpoint_slice(fields(kind, value, schema)?, first_seen)
            .map(Object::EndpointSlice),
        Kind::Gateway => {
            gateway::gateway(fields(kind, value, schema)?, first_seen).map(Object::Gateway)
        }
        Kind::GatewayClass => gateway::gateway_class(fields(kind, value, schema)?, first_seen)
            .map(Object::GatewayClass),
        Kind::GatewayParameters => {
            let raw = fields(kind, value, schema)?;
            parameters::gateway_parameters(raw, first_seen).map(Object::GatewayParameters)
        }
        Kind::GrpcRoute => route::grpc_route(fields(kind, value, schema)?, value, first_seen)
            .map(Object::GrpcRoute),
        Kind::HttpRoute => route::http_route(fields(kind, value, schema)?, value, first_seen)
            .map(Object::HttpRoute),
        Kind::ListenerSet => {
            gateway::listener_set(fields(kind, value, schema)?, first_seen).map(Object::ListenerSet)
        }
        Kind::Namespace => {
            core::namespace(fields(kind, value, schema)?, first_seen).map(Object::Namespace)
        }
        Kind::PeerAuthentication => {
            mesh::peer_authentication(fields(kind, value, schema)?, first_seen)
                .map(|(key, policy)| Object::PeerAuthentication(key, policy))
        }
        Kind::ReferenceGrant => gateway::reference_grant(fields(kind, value, schema)?, first_seen)
            .map(Object::ReferenceGrant),
        Kind::Secret => core::secret(fields(kind, value, schema)?, first_seen).map(Object::Secret),
        Kind::Service => {
            core::service(fields(kind, value, schema)?, first_seen).map(Object::Service)
        }
        Kind::ServiceExport => mesh::service_export(fields(kind, value, schema)?, first_seen)
            .map(Object::ServiceExport),
        Kind::TcpRoute => {
            let raw = fields::<StreamRaw>(kind, value, schema)?;
            route::stream_route(StreamRouteKind::Tcp, raw, value, first_seen).map(Object::TcpRoute)
        }
        Kind::TlsRoute => {
            let raw = fields::<StreamRaw>(kind, value, schema)?;
            route::stream_route(StreamRouteKind::Tls, raw, value, first_seen).map(Object::TlsRoute)
        }
        Kind::UdpRoute => {
            let raw = fields::<StreamRaw>(kind, value, schema)?;
            route::stream_route(StreamRouteKind::Udp, raw, value, first_seen).map(Object::UdpRoute)
        }
    }
}

/// Whether the object says its creation time itself.
pub(crate) fn has_creation_time(value: &Value) -> bool {
    value.pointer("/metadata/creationTimestamp").is_some_and(|time| !time.is_null())
}

/// `metadata.generation`, which counts the changes of a spec. Directories have none.
pub(crate) fn generation(value: &Value) -> Option<i64> {
    value.pointer("/metadata/generation").and_then(Value::as_i64)
}

/// Namespace and name.
fn key(metadata: &Metadata) -> Result<ObjectKey, FieldError> {
    let namespace = metadata.namespace.as_deref().filter(|text| !text.is_empty());
    let namespace = namespace.unwrap_or(DEFAULT_NAMESPACE);
    Ok(ObjectKey {
        namespace: isthmus_model::Label::new(namespace).at("metadata.namespace")?,
        name: isthmus_model::ObjectName::new(&metadata.name).at("metadata.name")?,
    })
}

/// Seconds since 1970, from `creationTimestamp` or `first_seen`.
fn created(metadata: &Metadata, first_seen: i64) -> Result<i64, FieldError> {
    let Some(text) = &metadata.creation_timestamp else {
        return Ok(first_seen);
    };
    OffsetDateTime::parse(text, &Rfc3339)
        .map(OffsetDateTime::unix_timestamp)
        .map_err(|_| Reason::value(text, "a time like 2026-01-31T12:00:00Z"))
        .at("metadata.creationTimestamp")
}

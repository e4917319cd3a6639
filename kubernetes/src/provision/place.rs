//! Where clients reach a Gateway, as far as the server has said.

use std::fmt;
use std::net::IpAddr;

/// Where clients reach a Gateway, and what is missing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GatewayPlace {
    /// The addresses, in the order in which the Service gives them.
    pub addresses: Vec<PlaceAddress>,
    /// How many pods serve the Gateway now.
    pub pods_available: u32,
    /// Why the Gateway cannot be reached as it asks; `None` when it can.
    pub problem: Option<PlaceProblem>,
}

/// One address of a Gateway.
///
/// Spec: Gateway API `GatewayStatusAddress`, types `Hostname` and `IPAddress`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PlaceAddress {
    /// A DNS name, as some load balancers give it.
    Hostname(String),
    /// An address.
    Ip(IpAddr),
}

impl fmt::Display for PlaceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hostname(name) => f.write_str(name),
            Self::Ip(address) => write!(f, "{address}"),
        }
    }
}

/// Why a Gateway cannot be reached as it asks.
///
/// Spec: Gateway API `GatewayConditionReason` of the condition `Programmed`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaceProblem {
    /// One of the words that the specification knows: `AddressNotAssigned`,
    /// `AddressNotUsable`, `Invalid`, `NoResources` or `Pending`.
    pub reason: &'static str,
    /// Why, for people.
    pub message: String,
}

impl PlaceProblem {
    /// A problem.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

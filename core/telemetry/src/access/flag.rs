//! Why a hop did not simply relay an answer.

macro_rules! response_flags {
    ($($(#[$doc:meta])* $name:ident = $short:literal,)*) => {
        /// Why a hop did not simply relay an answer.
        ///
        /// The short labels are those of Envoy's access log where it has one.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ResponseFlag {
            $($(#[$doc])* $name,)*
        }

        impl ResponseFlag {
            /// The value of the `response_flags` label, for example `NR`.
            pub fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $short,)*
                }
            }

            /// The flag in words, for example `NoRoute`.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }
        }
    };
}

response_flags! {
    /// The request was not authenticated.
    AuthenticationFailed = "UAEX",
    /// The client ended the connection or reset the stream first.
    ClientDisconnect = "DC",
    /// The client was too slow with its request or body.
    ClientTimeout = "DT",
    /// A rule answered for the backend (redirect, fixed response, fault).
    Direct = "DI",
    /// This process is draining.
    Draining = "DRN",
    /// The link to the destination's cluster is down.
    LinkDown = "LD",
    /// The request could not be made canonical.
    Malformed = "DPE",
    /// No endpoint of the backend is usable.
    NoHealthyUpstream = "UH",
    /// The answer was relayed.
    #[default]
    None = "-",
    /// No route matches the request.
    NoRoute = "NR",
    /// A limit of this process was reached.
    Overload = "OM",
    /// A rate limit refused the request.
    RateLimited = "RL",
    /// Policy refused the request.
    Refused = "RBAC",
    /// The body or the head is larger than a limit.
    TooLarge = "TL",
    /// The upstream could not be connected.
    UpstreamConnectFailure = "UF",
    /// The upstream's answer was not valid.
    UpstreamProtocol = "UPE",
    /// The upstream ended the connection before its answer was complete.
    UpstreamReset = "UC",
    /// The upstream did not answer in time.
    UpstreamTimeout = "UT",
    /// The upstream's identity or certificate was refused.
    UpstreamTls = "UT_TLS",
}

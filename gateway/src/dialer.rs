//! Reaches remote endpoints by the links of this process.

use isthmus_link::StreamHeader;
use isthmus_model::ClusterId;
use isthmus_proxy::connect::LocalFuture;
use isthmus_proxy::{ConnectError, Destination, Io, RemoteDialer};
use isthmus_runtime::error_chain;

use crate::eastwest::{LinkHandle, link_trace};

/// Opens link streams for the ingress of the same process.
#[derive(Debug)]
pub struct LinkDialer {
    links: LinkHandle,
}

impl LinkDialer {
    /// Uses these links.
    pub fn new(links: LinkHandle) -> Self {
        Self { links }
    }
}

impl RemoteDialer for LinkDialer {
    fn dial(
        &self,
        cluster: &ClusterId,
        to: &Destination,
    ) -> LocalFuture<Result<Box<dyn Io>, ConnectError>> {
        let (links, cluster) = (self.links.clone(), cluster.clone());
        let mut header = StreamHeader::new(to.service.clone(), to.port);
        header.endpoint = Some(to.endpoint.id.clone());
        header.trace = to.span.as_ref().map(link_trace);
        Box::pin(async move {
            match links.set().open(&cluster, header).await {
                Ok(stream) => Ok(Box::new(stream) as Box<dyn Io>),
                Err(error) => Err(ConnectError::NoLink {
                    cluster: cluster.to_string(),
                    reason: error_chain(&error),
                }),
            }
        })
    }
}

//! Records on their way from a worker to the telemetry task.
//!
//! Text goes into one buffer for the whole batch, each field cut, so that a record
//! costs no allocation of its own and a batch has a bounded size.

use std::sync::Arc;

use crate::access::AccessRecord;
use crate::resource::Resource;

/// Records with their text, ready to leave the worker.
#[derive(Debug)]
pub(crate) struct Batch {
    resource: Arc<Resource>,
    text: Vec<u8>,
    entries: Vec<Entry>,
}

impl Batch {
    /// An empty batch with room for `count` records.
    pub(crate) fn new(resource: Arc<Resource>, count: usize) -> Self {
        Self {
            resource,
            text: Vec::with_capacity(count * RECORD_TEXT_BYTES_TYPICAL),
            entries: Vec::with_capacity(count),
        }
    }

    /// Copies a record in.
    ///
    /// `log` says whether the access log wants it; its span is exported if it is sampled.
    pub(crate) fn push(&mut self, record: &AccessRecord<'_>, log: bool) {
        let start = self.text.len();
        let mut ends = [0; TEXTS];
        for (end, (text, limit)) in ends.iter_mut().zip(texts(record)) {
            self.text.extend_from_slice(cut(text, limit));
            *end = self.text.len();
        }
        let fixed = AccessRecord {
            duration: record.duration,
            client: record.client,
            upstream: record.upstream,
            status: record.status,
            grpc_status: record.grpc_status,
            flag: record.flag,
            bytes_received: record.bytes_received,
            bytes_sent: record.bytes_sent,
            attempts: record.attempts,
            span: record.span,
            ..AccessRecord::new(record.role, record.protocol, record.start)
        };
        self.entries.push(Entry { fixed, start, ends, log });
    }

    /// Whose records these are.
    pub(crate) fn resource(&self) -> &Arc<Resource> {
        &self.resource
    }

    /// How many records there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The records, each with whether the access log wants it.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (AccessRecord<'_>, bool)> {
        self.entries.iter().map(|entry| (self.record(entry), entry.log))
    }

    fn record<'a>(&'a self, entry: &Entry) -> AccessRecord<'a> {
        let bytes = |index: usize| -> &'a [u8] {
            let from = if index == 0 { entry.start } else { entry.ends[index - 1] };
            self.text.get(from..entry.ends[index]).unwrap_or_default()
        };
        // A cut may end inside a character, so what is left of one is dropped.
        let text = |index| bytes(index).utf8_chunks().next().map_or("", |chunk| chunk.valid());
        AccessRecord {
            authority: bytes(0),
            path: bytes(1),
            user_agent: bytes(2),
            request_id: bytes(3),
            method: text(4),
            endpoint: text(5),
            route: text(6),
            service: text(7),
            namespace: text(8),
            destination_cluster: text(9),
            destination_identity: text(10),
            source_cluster: text(11),
            source_identity: text(12),
            detail: text(13),
            ..entry.fixed
        }
    }
}

#[derive(Debug)]
struct Entry {
    fixed: AccessRecord<'static>,
    start: usize,
    ends: [usize; TEXTS],
    log: bool,
}

fn texts<'a>(record: &AccessRecord<'a>) -> [(&'a [u8], usize); TEXTS] {
    let path = record.path.split(|byte| *byte == b'?').next().unwrap_or_default();
    [
        (record.authority, NAME_BYTES_MAX),
        (path, PATH_BYTES_MAX),
        (record.user_agent, NAME_BYTES_MAX),
        (record.request_id, NAME_BYTES_MAX),
        (record.method.as_bytes(), METHOD_BYTES_MAX),
        (record.endpoint.as_bytes(), NAME_BYTES_MAX),
        (record.route.as_bytes(), NAME_BYTES_MAX),
        (record.service.as_bytes(), NAME_BYTES_MAX),
        (record.namespace.as_bytes(), NAME_BYTES_MAX),
        (record.destination_cluster.as_bytes(), NAME_BYTES_MAX),
        (record.destination_identity.as_bytes(), IDENTITY_BYTES_MAX),
        (record.source_cluster.as_bytes(), NAME_BYTES_MAX),
        (record.source_identity.as_bytes(), IDENTITY_BYTES_MAX),
        (record.detail.as_bytes(), IDENTITY_BYTES_MAX),
    ]
}

fn cut(text: &[u8], limit: usize) -> &[u8] {
    // One byte more than the limit is kept: the renderer then sees that it was cut.
    text.get(..=limit).unwrap_or(text)
}

const TEXTS: usize = 14;
const RECORD_TEXT_BYTES_TYPICAL: usize = 256;
/// Bytes of a method that are kept.
pub(crate) const METHOD_BYTES_MAX: usize = 32;
/// Bytes of a name (authority, user agent, request id, route, ...) that are kept.
pub(crate) const NAME_BYTES_MAX: usize = 256;
/// Bytes of a SPIFFE ID or an error that are kept.
pub(crate) const IDENTITY_BYTES_MAX: usize = 512;
/// Bytes of a path that are kept.
pub(crate) const PATH_BYTES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::access::{AccessFormat, HopRole, Protocol};

    #[test]
    fn a_record_is_the_same_after_the_journey() {
        let path = [b'p'; 4096];
        let record = AccessRecord {
            method: "GET",
            path: &path,
            authority: b"a.test",
            route: "r",
            source_identity: "spiffe://a/ns/b/sa/c",
            detail: "why",
            status: 503,
            ..AccessRecord::new(HopRole::Ingress, Protocol::Http2, UNIX_EPOCH)
        };
        let mut batch = Batch::new(Arc::new(Resource::new("test")), 4);
        batch.push(&record, true);
        batch.push(&AccessRecord { path: b"/x?token=secret", ..record }, false);
        assert_eq!(batch.len(), 2);
        let (mut before, mut after) = (String::new(), String::new());
        let (first, log) = batch.iter().next().unwrap();
        record.render(AccessFormat::Json, &mut before);
        first.render(AccessFormat::Json, &mut after);
        assert!(log);
        assert_eq!(before, after);
        assert!(after.len() < 3000 && after.contains("ppp..."));
        let (second, log) = batch.iter().nth(1).unwrap();
        assert_eq!((second.path, log), (&b"/x"[..], false));
    }

    #[test]
    fn an_oversized_record_stays_bounded() {
        let huge = vec![b'x'; 1 << 20];
        let text = "\u{65e5}".repeat(1 << 16);
        let record = AccessRecord {
            path: &huge,
            authority: &huge,
            user_agent: &huge,
            request_id: &huge,
            method: &text,
            detail: &text,
            ..AccessRecord::new(HopRole::Inbound, Protocol::Http1, UNIX_EPOCH)
        };
        let mut batch = Batch::new(Arc::new(Resource::new("test")), 1);
        batch.push(&record, true);
        assert!(batch.text.len() < 4096, "{}", batch.text.len());
        let mut line = String::new();
        batch.iter().next().unwrap().0.render(AccessFormat::Text, &mut line);
        assert_eq!(line.matches('\n').count(), 1);
    }
}

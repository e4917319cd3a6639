//! A line on which packets wait for their time. Pure: the caller gives the time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

/// Packets that are on their way in one direction.
#[derive(Debug)]
pub(super) struct Line {
    delay: Duration,
    packets: VecDeque<(Instant, Bytes)>,
    bytes: usize,
}

impl Line {
    /// An empty line.
    pub(super) fn new(delay: Duration) -> Self {
        Self { delay, packets: VecDeque::new(), bytes: 0 }
    }

    /// Takes a packet; `false` when the line is full and the packet is lost.
    pub(super) fn push(&mut self, now: Instant, packet: Bytes) -> bool {
        if self.packets.len() >= PACKETS_MAX || self.bytes + packet.len() > BYTES_MAX {
            return false;
        }
        self.bytes += packet.len();
        self.packets.push_back((now + self.delay, packet));
        true
    }

    /// The next packet whose time has come.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Bytes> {
        if self.packets.front()?.0 > now {
            return None;
        }
        let (_, packet) = self.packets.pop_front()?;
        self.bytes -= packet.len();
        Some(packet)
    }

    /// When the next packet's time comes.
    pub(super) fn next(&self) -> Option<Instant> {
        self.packets.front().map(|(at, _)| *at)
    }
}

/// Packets on one line: at 100 ms, some 20 000 a second.
const PACKETS_MAX: usize = 2048;
/// Bytes on one line.
const BYTES_MAX: usize = 4 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_come_in_order_after_the_delay() {
        let now = isthmus_runtime::clock::now();
        let millis = |n| now + Duration::from_millis(n);
        let mut line = Line::new(Duration::from_millis(20));
        assert!(line.push(now, Bytes::from_static(b"a")));
        assert!(line.push(millis(5), Bytes::from_static(b"b")));
        assert_eq!(line.next(), Some(millis(20)));
        assert_eq!(line.pop(millis(19)), None);
        assert_eq!(line.pop(millis(20)).as_deref(), Some(&b"a"[..]));
        assert_eq!(line.pop(millis(20)), None);
        assert_eq!(line.pop(millis(25)).as_deref(), Some(&b"b"[..]));
        assert_eq!((line.next(), line.bytes), (None, 0));
    }

    #[test]
    fn a_full_line_loses_packets_and_not_memory() {
        let now = isthmus_runtime::clock::now();
        let mut line = Line::new(Duration::ZERO);
        let taken = (0..PACKETS_MAX + 5).filter(|_| line.push(now, Bytes::from_static(b"a")));
        assert_eq!(taken.count(), PACKETS_MAX);
        let mut line = Line::new(Duration::ZERO);
        assert!(line.push(now, Bytes::from(vec![0; BYTES_MAX])));
        assert!(!line.push(now, Bytes::from_static(b"a")));
        line.pop(now).unwrap();
        assert!(line.push(now, Bytes::from_static(b"a")));
    }
}

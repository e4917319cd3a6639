//! From the body of a frame to its value.

use isthmus_model::ClusterId;

use super::{
    BYE, CLUSTER_BYTES_MAX, DRAIN, Frame, HELLO, HELLO_ACK, Hello, PADDING_BYTES_MAX, PING, PONG,
    REFUSE, ROLE, Role, STATS, Stats,
};
use crate::proto::version::VersionRange;
use crate::proto::wire::{DecodeError, Fields, REASON_BYTES_MAX, required};

impl Frame {
    /// Reads one frame's body; `None` for a type that this version does not know.
    pub(super) fn decode(kind: u8, body: &[u8]) -> Result<Option<Self>, DecodeError> {
        Ok(Some(match kind {
            HELLO => decode_hello(body)?,
            HELLO_ACK => decode_hello_ack(body)?,
            REFUSE => {
                let (code, reason) = decode_reason("refuse", body)?;
                Self::Refuse { code, reason }
            }
            PING => decode_ping(body)?,
            PONG => decode_pong(body)?,
            STATS => decode_stats(body)?,
            DRAIN => decode_drain(body)?,
            BYE => {
                let (code, reason) = decode_reason("bye", body)?;
                Self::Bye { code, reason }
            }
            ROLE => decode_role(body)?,
            _ => return Ok(None),
        }))
    }
}

fn decode_hello(body: &[u8]) -> Result<Frame, DecodeError> {
    let message = "hello";
    let (mut min, mut max, mut cluster, mut capabilities) = (None, None, None, None);
    let mut fields = Fields::new(message, body);
    while let Some(field) = fields.next_field()? {
        match field.tag {
            1 => field.once(&mut min, "version_min", field.u16("version_min")?)?,
            2 => field.once(&mut max, "version_max", field.u16("version_max")?)?,
            3 => {
                let text = field.text("cluster", CLUSTER_BYTES_MAX)?;
                let id = ClusterId::new(text)
                    .map_err(|_| field.invalid("cluster", "not a cluster id"))?;
                field.once(&mut cluster, "cluster", id)?;
            }
            4 => field.once(&mut capabilities, "capabilities", field.u64("capabilities")?)?,
            _ => {}
        }
    }
    let versions = VersionRange {
        min: required(message, "version_min", min)?,
        max: required(message, "version_max", max)?,
    };
    let cluster = required(message, "cluster", cluster)?;
    Ok(Frame::Hello(Hello { versions, cluster, capabilities: capabilities.unwrap_or(0) }))
}

fn decode_hello_ack(body: &[u8]) -> Result<Frame, DecodeError> {
    let message = "hello-ack";
    let (mut version, mut cluster, mut capabilities) = (None, None, None);
    let mut fields = Fields::new(message, body);
    while let Some(field) = fields.next_field()? {
        match field.tag {
            1 => field.once(&mut version, "version", field.u16("version")?)?,
            2 => {
                let text = field.text("cluster", CLUSTER_BYTES_MAX)?;
                let id = ClusterId::new(text)
                    .map_err(|_| field.invalid("cluster", "not a cluster id"))?;
                field.once(&mut cluster, "cluster", id)?;
            }
            3 => field.once(&mut capabilities, "capabilities", field.u64("capabilities")?)?,
            _ => {}
        }
    }
    Ok(Frame::HelloAck {
        version: required(message, "version", version)?,
        cluster: required(message, "cluster", cluster)?,
        capabilities: capabilities.unwrap_or(0),
    })
}

/// Reads the two fields that say why something ends.
pub(crate) fn decode_reason(
    message: &'static str,
    body: &[u8],
) -> Result<(u16, String), DecodeError> {
    let (mut code, mut reason) = (None, None);
    let mut fields = Fields::new(message, body);
    while let Some(field) = fields.next_field()? {
        match field.tag {
            1 => field.once(&mut code, "code", field.u16("code")?)?,
            2 => field.once(
                &mut reason,
                "reason",
                field.text("reason", REASON_BYTES_MAX)?.to_owned(),
            )?,
            _ => {}
        }
    }
    Ok((required(message, "code", code)?, reason.unwrap_or_default()))
}

fn decode_ping(body: &[u8]) -> Result<Frame, DecodeError> {
    let message = "ping";
    let (mut seq, mut sent_at, mut padding) = (None, None, None);
    let mut fields = Fields::new(message, body);
    while let Some(field) = fields.next_field()? {
        match field.tag {
            1 => field.once(&mut seq, "seq", field.u64("seq")?)?,
            2 => field.once(&mut sent_at, "sent_at", field.u64("sent_at")?)?,
            3 => {
                let bytes = field.bytes("padding", PADDING_BYTES_MAX)?;
                let length =
                    u16::try_from(bytes.len()).map_err(|_| field.invalid("padding", "too long"))?;
                field.once(&mut padding, "padding", length)?;
            }
            _ => {}
        }
    }
    Ok(Frame::Ping {
        seq: required(message, "seq", seq)?,
        sent_at_us: required(message, "sent_at", sent_at)?,
        padding: padding.unwrap_or(0),
    })
}

fn decode_pong(body: &[u8]) -> Result<Frame, DecodeError> {
    let message = "pong";
    let (mut seq, mut sent_at) = (None, None);
    let mut fields = Fields::new(message, body);
    while let Some(field) = fields.next_field()? {
        match field.tag {
            1 => field.once(&mut seq, "seq", field.u64("seq")?)?,
            2 => field.once(&mut sent_at, "sent_at", field.u64("sent_at")?)?,
            _ => {}
        }
    }
    Ok(Frame::Pong {
        seq: required(message, "seq", seq)?,
        sent_at_us: required(message, "sent_at", sent_at)?,
    })
}

fn decode_stats(body: &[u8]) -> Result<Frame, DecodeError> {
    let (mut rtt, mut loss, mut goodput, mut streams) = (None, None, None, None);
    let mut fields = Fields::new("stats", body);
    while let Some(field) = fields.next_field()? {
        match field.tag {
            1 => field.once(&mut rtt, "rtt", field.u32("rtt")?)?,
            2 => field.once(&mut loss, "loss", field.u32("loss")?)?,
            3 => field.once(&mut goodput, "goodput", field.u64("goodput")?)?,
            4 => field.once(&mut streams, "streams", field.u32("streams")?)?,
            _ => {}
        }
    }
    Ok(Frame::Stats(Stats {
        rtt_us: rtt.unwrap_or(0),
        loss_ppm: loss.unwrap_or(0),
        goodput: goodput.unwrap_or(0),
        streams: streams.unwrap_or(0),
    }))
}

fn decode_drain(body: &[u8]) -> Result<Frame, DecodeError> {
    let mut deadline = None;
    let mut fields = Fields::new("drain", body);
    while let Some(field) = fields.next_field()? {
        if field.tag == 1 {
            field.once(&mut deadline, "deadline", field.u32("deadline")?)?;
        }
    }
    Ok(Frame::Drain { deadline_ms: deadline.unwrap_or(0) })
}

fn decode_role(body: &[u8]) -> Result<Frame, DecodeError> {
    let mut role = None;
    let mut fields = Fields::new("role", body);
    while let Some(field) = fields.next_field()? {
        if field.tag == 1 {
            let value = match field.u8("role")? {
                0 => Role::Standby,
                1 => Role::Active,
                _ => return Err(field.invalid("role", "neither 0 nor 1")),
            };
            field.once(&mut role, "role", value)?;
        }
    }
    Ok(Frame::Role(required("role", "role", role)?))
}

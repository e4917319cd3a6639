use super::*;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

const NONE: SpliceLimits = SpliceLimits { idle_timeout: None };

fn pipes() -> (DuplexStream, DuplexStream, DuplexStream, DuplexStream) {
    let (left, a) = duplex(1000);
    let (b, right) = duplex(700);
    (left, a, b, right)
}

#[tokio::test]
async fn a_half_close_passes_through_and_the_other_direction_goes_on() {
    let (mut left, mut a, mut b, mut right) = pipes();
    let talk = async {
        left.write_all(b"question").await.unwrap();
        left.shutdown().await.unwrap();
        let mut got = String::new();
        right.read_to_string(&mut got).await.unwrap();
        right.write_all(b"answer to ").await.unwrap();
        right.write_all(got.as_bytes()).await.unwrap();
        right.shutdown().await.unwrap();
        let mut answer = String::new();
        left.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let (outcome, answer) = tokio::join!(splice(&mut a, &mut b, &NONE), talk);
    assert_eq!(answer, "answer to question");
    let want =
        SpliceOutcome { a_to_b: 8, b_to_a: 18, first_eof: Some(Side::A), end: SpliceEnd::Complete };
    assert_eq!(outcome, want);
}

#[tokio::test]
async fn large_data_arrives_whole_in_both_directions() {
    let (mut left, mut a, mut b, mut right) = pipes();
    let data: Vec<u8> = (0..1_000_000_u32).map(|i| (i % 251) as u8).collect();
    let exchange = async |stream: &mut DuplexStream| {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut got = Vec::new();
        let write = async {
            writer.write_all(&data).await.unwrap();
            writer.shutdown().await.unwrap();
        };
        tokio::join!(write, async { reader.read_to_end(&mut got).await.unwrap() });
        got
    };
    let (outcome, at_left, at_right) =
        tokio::join!(splice(&mut a, &mut b, &NONE), exchange(&mut left), exchange(&mut right));
    assert_eq!(outcome.end, SpliceEnd::Complete);
    assert_eq!((outcome.a_to_b, outcome.b_to_a), (1_000_000, 1_000_000));
    assert!(at_left == data && at_right == data);
}

#[tokio::test(start_paused = true)]
async fn silence_ends_a_splice_and_traffic_keeps_it() {
    let (mut left, mut a, mut b, mut right) = pipes();
    let begin = tokio::time::Instant::now();
    let limits = SpliceLimits { idle_timeout: Some(Duration::from_secs(8)) };
    let talk = async {
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_secs(5)).await;
            left.write_all(b"x").await.unwrap();
            right.read_exact(&mut [0]).await.unwrap();
        }
    };
    let (outcome, ()) = tokio::join!(splice(&mut a, &mut b, &limits), talk);
    assert_eq!((outcome.end, outcome.a_to_b), (SpliceEnd::Idle, 10));
    let silent = begin.elapsed() - Duration::from_secs(50);
    assert!((Duration::from_secs(8)..=Duration::from_secs(11)).contains(&silent), "{silent:?}");
}

#[tokio::test]
async fn a_side_that_cannot_be_read_ends_the_splice_with_its_name() {
    let mut a = Broken;
    let (mut b, _right) = duplex(10);
    let outcome = splice(&mut a, &mut b, &NONE).await;
    let want = SpliceEnd::Failed { side: Side::A, kind: io::ErrorKind::ConnectionReset };
    assert_eq!(outcome.end, want);
}

#[tokio::test]
async fn a_side_that_refuses_data_may_still_give_its_own() {
    let (mut left, mut a) = duplex(1000);
    let mut b = Refusing { answer: &b"no thanks"[..] };
    left.write_all(b"unwanted").await.unwrap();
    left.shutdown().await.unwrap();
    let mut got = String::new();
    let (outcome, read) =
        tokio::join!(splice(&mut a, &mut b, &NONE), left.read_to_string(&mut got));
    read.unwrap();
    assert_eq!(got, "no thanks");
    let want = SpliceEnd::Failed { side: Side::B, kind: io::ErrorKind::BrokenPipe };
    assert_eq!(outcome.end, want);
}

/// A stream that fails on every read.
struct Broken;

impl AsyncRead for Broken {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
    }
}

impl AsyncWrite for Broken {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A stream that takes nothing and gives one answer.
struct Refusing {
    answer: &'static [u8],
}

impl AsyncRead for Refusing {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.answer).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Refusing {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }
}

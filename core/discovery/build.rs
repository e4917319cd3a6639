//! Compiles `proto/discovery.proto` with protox, so that no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto/discovery.proto");
    let descriptors = protox::compile(["proto/discovery.proto"], ["proto"])?;
    tonic_prost_build::configure().bytes(".isthmus.discovery.v1").compile_fds(descriptors)?;
    Ok(())
}

# The image of every component: one binary and the libraries that it loads, nothing else.
#
#   docker build -t isthmus:dev .
FROM rust:1-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends cmake clang ca-certificates \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin isthmus
# What the binary loads, at the paths at which it looks; the roots of the public web, for
# backends outside; and a folder for the state.
RUN set -eu; \
    install -D target/release/isthmus /image/usr/local/bin/isthmus; \
    ldd target/release/isthmus | grep -o '/[^ ]*' | sort -u | while read -r library; do \
        install -D "$library" "/image$library"; \
    done; \
    install -D -m 0644 /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt; \
    install -d -m 0700 -o 65532 -g 65532 /image/var/lib/isthmus

FROM scratch
COPY --from=build /image /
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/isthmus"]

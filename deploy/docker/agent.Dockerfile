# procfleet-agent. Context: the repository. It is root in its container, with the capabilities that it is given.
FROM rust:1.95.0-bookworm AS build
# Compiles the BPF programs.
RUN apt-get update && apt-get install --yes --no-install-recommends clang
WORKDIR /src
COPY . .
RUN cargo build --release --locked --package agent --bin procfleet-agent && strip target/release/procfleet-agent

FROM debian:bookworm-20251117-slim
RUN install -d -m 0700 /var/lib/procfleet-agent
COPY --from=build /src/target/release/procfleet-agent /usr/local/bin/
VOLUME /var/lib/procfleet-agent
ENTRYPOINT ["/usr/local/bin/procfleet-agent"]
CMD ["run"]

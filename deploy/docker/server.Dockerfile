# procfleet-server with its web page. Context: the repository.
FROM node:22.21.1-bookworm-slim AS web
WORKDIR /src
COPY openapi.yaml .
COPY web web
RUN cd web && npm ci && npm run build

FROM rust:1.95.0-bookworm AS build
WORKDIR /src
COPY . .
COPY --from=web /src/web/dist web/dist
RUN cargo build --release --locked --package collector-api --bin procfleet-server \
    && strip target/release/procfleet-server

FROM debian:bookworm-20251117-slim
# Roots of what messages are sent to.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -o 65532 -g 65532 -m 0700 /var/lib/procfleet-server
COPY --from=build /src/target/release/procfleet-server /usr/local/bin/
USER 65532:65532
VOLUME /var/lib/procfleet-server
EXPOSE 7443 7080
ENTRYPOINT ["/usr/local/bin/procfleet-server"]
CMD ["serve"]

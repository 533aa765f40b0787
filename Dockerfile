# One image per process, each with its own program and `sluice`, whose `health` command
# is the health check. No shell, no package manager, no user but a number:
#
#   docker build --target api -t sluice-api .        (also: worker, sandbox, operator)

FROM golang:1.26-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates tzdata
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
# Static, so that they run on an empty image; -trimpath, so that the same source gives
# the same bytes wherever it is built.
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 go build -trimpath -ldflags=-s -o /out/ ./cmd/api ./cmd/worker ./cmd/sandbox ./cmd/sluice

FROM scratch AS base
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /usr/share/zoneinfo /usr/share/zoneinfo
COPY --from=build /out/sluice /sluice
USER 65532:65532

FROM base AS api
COPY --from=build /out/api /api
EXPOSE 8080
ENTRYPOINT ["/api"]

FROM base AS worker
COPY --from=build /out/worker /worker
ENTRYPOINT ["/worker"]

FROM base AS sandbox
COPY --from=build /out/sandbox /sandbox
EXPOSE 8090
ENTRYPOINT ["/sandbox"]

FROM base AS operator
ENTRYPOINT ["/sluice"]

# The operator's image: Node and what it runs, no shell, no npm, for linux/amd64 and linux/arm64.
#   docker buildx build --platform linux/amd64,linux/arm64 .
ARG NODE_VERSION=24

# Built on the builder's own platform: no dependency in production has native code.
FROM --platform=$BUILDPLATFORM docker.io/library/node:${NODE_VERSION}-trixie-slim AS build
WORKDIR /src
COPY package.json package-lock.json ./
# The development dependency `node` is the Node that npm scripts run on elsewhere; here it is the image's own.
RUN npm ci --ignore-scripts
COPY tsconfig.json tsconfig.build.json ./
COPY src src
RUN node node_modules/typescript/bin/tsc -p tsconfig.build.json \
 && npm ci --ignore-scripts --omit=dev \
 && find node_modules \( -name '*.map' -o -name '*.md' -o -name '*.d.ts' -o -name '*.d.mts' -o -name '*.d.cts' \) -type f -delete

FROM gcr.io/distroless/nodejs${NODE_VERSION}-debian13:nonroot
WORKDIR /app
COPY --from=build /src/package.json ./
COPY --from=build /src/node_modules node_modules
COPY --from=build /src/dist dist
COPY proto proto
COPY crds crds
COPY LICENSE ./
# By number, so that runAsNonRoot can be checked without the image's own /etc/passwd.
USER 65532:65532
ENV NODE_ENV=production
EXPOSE 18000 8080
# The flag keeps V8's young generation, and so the memory after a full push, small (see src/main.ts).
ENTRYPOINT ["/nodejs/bin/node", "--max-semi-space-size=16", "/app/dist/main.js"]

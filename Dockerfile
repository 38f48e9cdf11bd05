# Image of the operator: Node and the compiled program, without a shell and npm, for linux/amd64 and linux/arm64.
#   docker buildx build --platform linux/amd64,linux/arm64 .
ARG NODE_VERSION=24

# Built on the platform of the builder, because no production dependency has native code.
FROM --platform=$BUILDPLATFORM docker.io/library/node:${NODE_VERSION}-trixie-slim AS build
WORKDIR /src
COPY package.json package-lock.json ./
# --ignore-scripts skips the development dependency `node`: the Node of the base image is used.
RUN npm ci --ignore-scripts
COPY tsconfig.json tsconfig.build.json ./
COPY src src
RUN node node_modules/typescript/bin/tsc -p tsconfig.build.json \
 && npm ci --ignore-scripts --omit=dev
# Removes what Node does not load: documentation except licenses, source maps, TypeScript, and binaries for other runtimes.
RUN find node_modules -type d -name prebuilds -prune -exec rm -rf {} + \
 && find node_modules -type f \( -name '*.map' -o -name '*.[mc]ts' -o -name '*.ts' -o -name '*.node' -o -name '*.bare' -o \
      -name '*.md' ! -iname 'licen[sc]e*' ! -iname 'copying*' ! -iname 'notice*' ! -iname 'copyright*' ! -iname 'authors*' \
    \) -delete

FROM gcr.io/distroless/nodejs${NODE_VERSION}-debian13:nonroot
WORKDIR /app
COPY --from=build /src/package.json ./
COPY --from=build /src/node_modules node_modules
COPY --from=build /src/dist dist
COPY proto proto
COPY crds crds
COPY LICENSE ./
# A numeric user, so that the kubelet can verify runAsNonRoot without /etc/passwd of the image.
USER 65532:65532
ENV NODE_ENV=production
EXPOSE 18000 8080
# The flag keeps the young generation of V8 small, and with it the memory after a full push (see src/main.ts).
ENTRYPOINT ["/nodejs/bin/node", "--max-semi-space-size=16", "/app/dist/main.js"]

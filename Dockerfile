# Image of the operator: Node and the bundled program, without a shell and npm, for linux/amd64 and linux/arm64.
#   docker buildx build --platform linux/amd64,linux/arm64 .
# Everything runs on the platform of the builder: another one needs no emulator.
ARG NODE_VERSION=24

# Built on the platform of the builder, because no production dependency has native code.
FROM --platform=$BUILDPLATFORM docker.io/library/node:${NODE_VERSION}-trixie-slim AS build
WORKDIR /src
COPY package.json package-lock.json ./
# --ignore-scripts skips the development dependency `node`: the Node of the base image is used.
RUN npm ci --ignore-scripts
COPY tsconfig.json ./
COPY src src
# What the build needs in addition: see build/warm-up.ts.
COPY build build
COPY embedded-api-server embedded-api-server
COPY control-plane/certificates.ts control-plane/credentials.ts control-plane/
RUN node build/main.ts --without-cache \
 && npm ci --ignore-scripts --omit=dev
# Removes what Node does not load: documentation except licenses, source maps, TypeScript, and binaries for other runtimes.
# Node loads only the packages that are not bundled; the others remain for their licenses.
RUN find node_modules -type d -name prebuilds -prune -exec rm -rf {} + \
 && find node_modules -type f \( -name '*.map' -o -name '*.[mc]ts' -o -name '*.ts' -o -name '*.node' -o -name '*.bare' -o \
      -name '*.md' ! -iname 'licen[sc]e*' ! -iname 'copying*' ! -iname 'notice*' ! -iname 'copyright*' ! -iname 'authors*' \
    \) -delete

# Writes the code that V8 compiles at the start and for the first reports. It is valid for this Node, under the flags of
# V8; otherwise the program compiles it when it is used.
FROM --platform=$BUILDPLATFORM gcr.io/distroless/nodejs${NODE_VERSION}-debian13:nonroot AS compiled
WORKDIR /app
COPY --from=build /src/package.json ./
COPY --from=build /src/node_modules node_modules
COPY --from=build /src/dist dist
COPY proto proto
COPY crds crds
USER 65532:65532
ENV NODE_ENV=production
RUN ["/nodejs/bin/node", "--max-semi-space-size=8", "--no-flush-bytecode", "--liftoff-only", "--heap-growing-percent=40", "/app/dist/warm-up.js", "/tmp/compile-cache"]

# Adds that code, unless the image is for another platform, and removes the program that has written it.
FROM build AS complete
ARG BUILDPLATFORM
ARG TARGETPLATFORM
# The program must be able to read these files, but not to write them.
COPY --from=compiled --chown=0:0 --chmod=0755 /tmp/compile-cache dist/compile-cache
RUN rm dist/warm-up.js dist/warm-up.js.map \
 && if [ "$BUILDPLATFORM" != "$TARGETPLATFORM" ]; then rm -r dist/compile-cache; fi

FROM gcr.io/distroless/nodejs${NODE_VERSION}-debian13:nonroot
WORKDIR /app
COPY --from=build /src/package.json ./
COPY --from=build /src/node_modules node_modules
COPY --from=complete /src/dist dist
COPY proto proto
COPY crds crds
COPY LICENSE ./
# A numeric user, so that the kubelet can verify runAsNonRoot without /etc/passwd of the image.
USER 65532:65532
ENV NODE_ENV=production MALLOC_ARENA_MAX=1 MALLOC_TRIM_THRESHOLD_=131072
EXPOSE 18000 8080
# The variables of glibc and the flags of V8 are those of src/main.ts: less memory, and no delay after an idle time.
ENTRYPOINT ["/nodejs/bin/node", "--max-semi-space-size=8", "--no-flush-bytecode", "--liftoff-only", "--heap-growing-percent=40", "/app/dist/main.js"]

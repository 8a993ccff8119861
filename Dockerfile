# Boilerhouse: one image for web, worker and controller. `docker build -t boilerhouse .`
# BASE is any Debian 12 with Python 3.11; a locally made root file system will do.
ARG BASE=debian:12-slim
FROM ${BASE} AS built
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 python3-venv ca-certificates gcc musl-tools make \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/boilerhouse
# Extra options of pip, e.g. an index of your own.
ARG PIP_OPTIONS=""
RUN python3 -m venv /opt/uv && /opt/uv/bin/pip install -q --no-cache-dir ${PIP_OPTIONS} 'uv>=0.9,<1'
COPY pyproject.toml uv.lock ./
COPY clients/python clients/python
# The system's certificates: some networks have an authority of their own.
RUN UV_SYSTEM_CERTS=1 UV_NATIVE_TLS=1 UV_PROJECT_ENVIRONMENT=/opt/boilerhouse/.venv /opt/uv/bin/uv sync --frozen --no-dev --extra tracing --no-cache \
    --python /usr/bin/python3
COPY manage.py README.md ./
COPY boilerhouse boilerhouse
COPY pools pools
COPY tenants tenants
COPY syncing syncing
COPY templates templates
COPY static static
COPY docker docker
COPY guest guest
RUN make -C guest
COPY deploy/docker-proxy deploy/docker-proxy
RUN .venv/bin/python -m compileall -q boilerhouse pools tenants syncing .venv/lib

FROM ${BASE}
# bubblewrap jails rclone; nftables and iproute2 hold containers to their
# network policies (iptables only takes away what earlier versions set); util-linux has setpriv, mount, unshare and losetup.
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 bubblewrap nftables iproute2 iptables util-linux e2fsprogs ca-certificates tini busybox-static \
 && rm -rf /var/lib/apt/lists/*
COPY --from=built /opt/boilerhouse /opt/boilerhouse
WORKDIR /opt/boilerhouse
ENV PATH=/opt/boilerhouse/.venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONUNBUFFERED=1 \
    TINI_SUBREAPER=1 \
    BOILERHOUSE_DATA_DIR=/var/lib/boilerhouse \
    BOILERHOUSE_LOG_FORMAT=json
EXPOSE 8000
# Answers for the web process; workers and controllers are watched by their heartbeats (/health/ready, metrics).
# Where run_web is given another --port, set BOILERHOUSE_PORT as well. A proxy for sinks (HTTP_PROXY) is not asked.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s CMD \
    ["python", "-c", "import os, urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:%s/api/v1/health' % os.environ.get('BOILERHOUSE_PORT', '8000'), timeout=2)"]
ENTRYPOINT ["tini", "--", "python", "manage.py"]
CMD ["run_web", "--host", "0.0.0.0"]

# Boilerhouse. `make demo` shows it at work, `make test` tests all of it; both do their own set-up.
.PHONY: availability demo test test-engines test-long test-pythons quick check format bench bench-quick schema screenshots bootstrap bootstrap-test

ARGS ?=
# Hundreds of Python processes start. With this variable, each compiles all that it imports: half of its processor time.
unexport PYTHONDONTWRITEBYTECODE

demo: bootstrap
	@PATH="$$PATH:/usr/sbin:/sbin" .venv/bin/python manage.py demo $(ARGS)

test: bootstrap-test
	@scripts/test.sh $(ARGS)

quick: bootstrap-test
	@scripts/quick.sh $(ARGS)

test-pythons: bootstrap-test
	@scripts/test-pythons.sh $(ARGS)

test-long: bootstrap-test
	@BOILERHOUSE_LONG=1 scripts/test.sh $(ARGS)

test-engines: bootstrap-test
	@scripts/test-engines.sh $(ARGS)

check: bootstrap-test
	@scripts/check.sh

format: bootstrap-test
	@scripts/format.sh

bench: bootstrap-test
	@PATH="$$PATH:/usr/sbin:/sbin" .venv/bin/python -m bench $(ARGS)

bench-quick: bootstrap-test
	@PATH="$$PATH:/usr/sbin:/sbin" .venv/bin/python -m bench --quick $(ARGS)

schema: bootstrap-test
	@.venv/bin/python manage.py spectacular --validate --fail-on-warn --format openapi-json --file docs/openapi.json

bootstrap:
	@scripts/bootstrap.sh demo

bootstrap-test:
	@scripts/bootstrap.sh test

screenshots: bootstrap-test
	@PATH="$$PATH:/usr/sbin:/sbin" .venv/bin/python scripts/screenshots.py $(ARGS)

availability: bootstrap-test
	@PATH="$$PATH:/usr/sbin:/sbin" scripts/engine.sh scripts/postgresql.sh .venv/bin/python -m tests.availability $(ARGS)

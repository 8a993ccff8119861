"""The framework of the REST API: views, serializers, pagination and the schema."""

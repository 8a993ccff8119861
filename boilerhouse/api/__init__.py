"""The REST API's framework: views, serializers, pages of lists, and its description."""

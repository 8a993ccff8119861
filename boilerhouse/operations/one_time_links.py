"""Links that log a staff user in once."""

from __future__ import annotations

from django.contrib.auth import get_user_model
from django.db.models import Q
from django.urls import reverse
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_encode

from boilerhouse.core.errors import NotFound
from boilerhouse.core.models import Role
from boilerhouse.operations.addresses import public_origin
from boilerhouse.operations.login_tokens import login_tokens


def path_for(name: str, *, creates: bool) -> str:
    """The path that logs this user in once; with ``creates``, a superuser of that name is created if necessary.

    Whoever has the path may sign in, so it is printed and never logged. Raises NotFound.
    """
    model = get_user_model()
    user = model.objects.filter(username=name).first()
    if user is None and creates:
        user = model.objects.create_superuser(username=name)
        user.set_unusable_password()
        user.save(update_fields=["password"])
    if user is None:
        raise NotFound(f"There is no user {name}. Add --create to create an admin of that name.")
    if not user.is_staff:
        raise NotFound(f"User {name} is not staff, so the dashboard refuses it. Choose another name with --user.")
    uid = urlsafe_base64_encode(force_bytes(user.pk))
    return reverse("one-time-login", args=[uid, login_tokens.make_token(user)])


def url_for(name: str, *, creates: bool) -> str:
    """The same with the address at which people open the dashboard; the path alone if that is not known."""
    return public_origin() + path_for(name, creates=creates)


def has_admin() -> bool:
    """Whether anybody can sign in who may do everything."""
    able = Q(is_superuser=True) | Q(is_staff=True, groups__name=Role.ADMIN.value)
    return bool(get_user_model().objects.filter(able, is_active=True).exists())

"""The words of the pages that are chosen at run time: states, verdicts, reasons. `N_` marks them for the catalogues.

A code that is not listed is shown as it is: a newer program's word is better than none.
"""

from __future__ import annotations

from collections.abc import Mapping

from cloud.dashboard.i18n import Speech


def N_(message: str) -> str:
    """Mark a string for extraction and leave it as it is. The name is gettext's own for "translate later"."""
    return message


VERDICTS = {"pass": N_("passed"), "reject": N_("rejected"), "unsure": N_("sent to a person")}

UPDATE_STATES = {
    "idle": N_("up to date"),
    "checking": N_("checking for a release"),
    "downloading": N_("downloading"),
    "verified": N_("verified, waiting to activate"),
    "waiting": N_("waiting for its wave"),
    "activating": N_("activating"),
    "probation": N_("on probation"),
    "committed": N_("running the release"),
    "rolled_back": N_("rolled back"),
    "refused": N_("refused the release"),
    "blocked": N_("blocked"),
}
BAD_UPDATE_STATES = frozenset({"rolled_back", "refused", "blocked"})

BOX_STATES = {
    "ok": N_("running it"),
    "pending": N_("pending"),
    "failed": N_("failed"),
    "offline": N_("offline"),
    "excluded": N_("excluded"),
}

REPORT_REASONS = {
    "probe_failed": N_("the trial run before activation failed"),
    "probation_failed": N_("it failed on probation and was taken back"),
    "crashed": N_("the inspection crashed with it"),
    "wrong_base": N_("it was made for another base model"),
    "wrong_line": N_("it was made for another line"),
    "requirements": N_("the box lacks what the release needs"),
    "bad_adapter": N_("the adapter is damaged or does not fit"),
    "disk_full": N_("the disk is full"),
    "revoked": N_("the release was revoked"),
    "signature": N_("a signature is not valid"),
    "digest": N_("the bytes are not those that were signed"),
    "expired": N_("the signed metadata have expired"),
    "rollback": N_("someone offered an older release than the box has seen"),
    "clock": N_("the box's clock cannot be believed"),
    "tampered": N_("files on the box were changed"),
    "transport": N_("the release could not be fetched"),
}

RELEASE_STATES = {
    "running": N_("rolling out"),
    "paused": N_("paused"),
    "complete": N_("complete"),
    "aborted": N_("aborted"),
    "superseded": N_("superseded"),
}
CANDIDATE_STATES = {
    "trained": N_("waiting for the gate"),
    "accepted": N_("accepted"),
    "refused": N_("refused"),
    "published": N_("published"),
    "revoked": N_("revoked"),
}
BAD_STATES = frozenset({"aborted", "refused", "revoked", "failed"})
ATTENTION_STATES = frozenset({"paused", "offline"})

LOSSES = {
    "crash_before_accept": N_("lost in a crash before it was stored"),
    "corrupt": N_("corrupt"),
    "thinned": N_("thinned out, accounted for"),
    "evicted": N_("evicted for space"),
    "io_error": N_("disk error"),
    "refused": N_("refused by the cloud"),
    "accounting_ended": N_("no longer accounted for"),
}

SIGN_IN_ERRORS = {
    "bad_token": N_("This token is not known here. Check it for missing characters, or ask for a new one."),
    "no_token": N_("Enter your token."),
    "expired": N_("Your session has ended. Sign in again; nothing you entered was lost."),
    "too_many": N_("Too many attempts. Wait a minute, then try again."),
}


def word(speech: Speech, table: Mapping[str, str], code: str | None) -> str:
    """The table's sentence for a code, or the code itself."""
    if not code:
        return "–"
    return speech.say(table[code]) if code in table else code


def sign_in_error(speech: Speech, error: str) -> str:
    """A known error by its code, or a sentence as it is."""
    return word(speech, SIGN_IN_ERRORS, error)


def review_words(speech: Speech) -> dict[str, object]:
    """What the review page's script says; ``{name}`` fields are filled in the browser."""
    say = speech.say
    return {
        "image": say("The part to judge"),
        "image_loading": say("The image is still loading."),
        "cannot_label_unseen": say("The image cannot be shown, so it cannot be labelled. Skip it with x."),
        "labelled": say("Labelled {name}."),
        "skipped": say("Skipped."),
        "skipped_mark": say("skipped"),
        "undone": say("Taken back: {name}."),
        "nothing_to_undo": say("There is nothing to take back."),
        "language": speech.html,
        "words_from": say("About the decision of release {release}"),
        "no_suggestion": say("The model made no suggestion. Choose a class."),
        "could_not_judge": say("The model could not judge this one"),
        "flag_on": say("Flagged for a second look."),
        "flagged_already": say("It is flagged already."),
        "flag_mark": say("flag"),
        "heat_on": say("Evidence map on."),
        "heat_off": say("Evidence map off."),
        "sure": say("{percent} % sure"),
        "counts": say("Drawn at random: counts towards accuracy and training"),
        "trains": say("Chosen because it teaches most: counts towards training only"),
        "defect": say("defect"),
        "good": say("good"),
        "all_saved": say("All saved"),
        "saving": say("Saving {n}"),
        "offline": say("No connection: {n} kept on this computer, sent when it returns"),
        "signed_out": say("Signed out: {n} kept on this computer, sent after you sign in"),
        "not_saved_yet": say("not saved yet"),
        "refused": say("“{name}” was not taken: {why}"),
        "try_again": say("Try again"),
        "dismiss": say("Dismiss"),
        "foreign": say("{n} decisions by {name} wait on this computer. They are sent when {name} signs in here."),
        "verdicts": {code: word(speech, VERDICTS, code) for code in VERDICTS},
    }

"""People review outlines: a queue in batches, claims, verdicts that are never changed, and what follows from them."""

from typing import TYPE_CHECKING

from rtsx.names import lazy

if TYPE_CHECKING:
    from rtsx.review.merge import MergedReview, ReviewStatus, merge_review, review_status
    from rtsx.review.plan import AddedOutline, Answer, BatchVerdicts, ReviewClaim
    from rtsx.review.server import serve_review
    from rtsx.review.store import Review, create_review, open_review

__getattr__ = lazy(__name__)

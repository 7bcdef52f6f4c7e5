"""The bodies of the HTTP API, checked by pydantic, each with an example. `from serve.schemas import SearchAnswer`.

envelope    what all bodies share: a refusal, and which gallery an answer comes from
options     what a search may be told, filters
search      what it answers
faces       the faces of a photo; whether two photos show the same
images      images of the gallery: one, a page, adding, deleting
people      groups and their corrections, duplicates
info        what the service says of itself
admin       what it is told by those who run it
"""

from serve.schemas.admin import ReloadAnswer, ReloadRequest, SnapshotAnswer
from serve.schemas.envelope import ErrorBody, ErrorDetail, FromGallery, RequestBody
from serve.schemas.faces import FacesAnswer, FoundFace, VerifyAnswer
from serve.schemas.images import AddAnswer, AddedItem, AddItem, AddOptions, ImageInfo, ImagePage, Pending, Receipt
from serve.schemas.info import (
    AllLimits,
    CalibrationInfo,
    CandidateInfo,
    Defaults,
    Features,
    Health,
    IndexInfo,
    Info,
    KnownRate,
    Limits,
    LoadedModel,
    ModelInfo,
    Part,
    Ready,
    RefusedVersion,
    ServiceInfo,
)
from serve.schemas.options import MAX_ALPHA, Filter, SearchOptions, WeightedImage
from serve.schemas.people import (
    DuplicateGroup,
    DuplicatesPage,
    MergeRequest,
    NameRequest,
    PeopleAfter,
    PeoplePage,
    Person,
    PersonPhotos,
    SplitRequest,
)
from serve.schemas.search import (
    Answer,
    BatchAnswer,
    BatchItem,
    Decision,
    Expansion,
    FaceAnswer,
    Quality,
    QueryPhoto,
    Result,
    SearchAnswer,
    Seconds,
)

__all__ = [
    "MAX_ALPHA",
    "AddAnswer",
    "AddItem",
    "AddOptions",
    "AddedItem",
    "AllLimits",
    "Answer",
    "BatchAnswer",
    "BatchItem",
    "CalibrationInfo",
    "CandidateInfo",
    "Decision",
    "Defaults",
    "DuplicateGroup",
    "DuplicatesPage",
    "ErrorBody",
    "ErrorDetail",
    "Expansion",
    "FaceAnswer",
    "FacesAnswer",
    "Features",
    "Filter",
    "FoundFace",
    "FromGallery",
    "Health",
    "ImageInfo",
    "ImagePage",
    "IndexInfo",
    "Info",
    "KnownRate",
    "Limits",
    "LoadedModel",
    "MergeRequest",
    "ModelInfo",
    "NameRequest",
    "Part",
    "Pending",
    "PeopleAfter",
    "PeoplePage",
    "Person",
    "PersonPhotos",
    "Quality",
    "QueryPhoto",
    "Ready",
    "Receipt",
    "RefusedVersion",
    "ReloadAnswer",
    "ReloadRequest",
    "RequestBody",
    "Result",
    "SearchAnswer",
    "SearchOptions",
    "Seconds",
    "ServiceInfo",
    "SnapshotAnswer",
    "SplitRequest",
    "VerifyAnswer",
    "WeightedImage",
]

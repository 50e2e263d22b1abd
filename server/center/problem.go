package center

import (
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strconv"
	"time"

	adminapi "carillon/server/center/api/admin"
	publicapi "carillon/server/center/api/public"
	"carillon/server/center/strictjson"
	"carillon/server/push"
)

// Code is the stable name of an error (ProblemCode in openapi.yaml).
type Code string

// The codes that this package gives by itself; the others come from below as the Code of a push.Error.
const (
	codeMalformedJSON        Code = "malformed_json"
	codeInvalidRequest       Code = "invalid_request"
	codeInvalidParameter     Code = "invalid_parameter"
	codeUnauthenticated      Code = "unauthenticated"
	codeUnknownPath          Code = "unknown_path"
	codeDeviceNotFound       Code = "device_not_found"
	codeMethodNotAllowed     Code = "method_not_allowed"
	codeRequestTooLarge      Code = "request_too_large"
	codeMessageTooLarge      Code = "message_too_large"
	codeAudienceTooLarge     Code = "audience_too_large"
	codeTooManyTargets       Code = "too_many_targets"
	codeUnsupportedMediaType Code = "unsupported_media_type"
	codeIdempotencyKeyReused Code = "idempotency_key_reused"
	codeTooManyRequests      Code = "too_many_requests"
	codeInternal             Code = "internal"
	codeNotSupported         Code = "not_supported"
	codeDurability           Code = "durability_unavailable"
	codeStorageFailed        Code = "storage_failed"
	codeStorageSlow          Code = "storage_slow"
	codeRoomsUnavailable     Code = "rooms_unavailable"
	codeShuttingDown         Code = "shutting_down"
	codeTaskMove             Code = "task_move"
	codeApprovalByMaker      Code = "approval_by_maker"
	codeListMalformed        Code = "list_malformed"
	codeListBadLines         Code = "list_bad_lines"
	codeListTooLarge         Code = "list_too_large"
	codeTooManyLists         Code = "too_many_lists"
)

// problem is what each code means over HTTP.
type problem struct {
	status int
	title  string
}

var problems = map[Code]problem{
	codeMalformedJSON:        {400, "The body is not one JSON document"},
	codeInvalidRequest:       {400, "The request is not valid"},
	codeInvalidParameter:     {400, "A parameter is not valid"},
	"backup_dir":             {400, "The directory cannot be used"},
	codeListMalformed:        {400, "The list cannot be read"},
	codeListBadLines:         {400, "Lines of the list are wrong"},
	codeUnauthenticated:      {401, "The credential is missing or does not hold"},
	"key_expired":            {401, "The API key has expired"},
	"key_revoked":            {401, "The API key was revoked"},
	"scope_missing":          {403, "The API key does not allow this"},
	"product_disabled":       {403, "The product is disabled"},
	codeApprovalByMaker:      {403, "Somebody else has to approve the task"},
	codeUnknownPath:          {404, "There is nothing at this path"},
	"message_not_found":      {404, "No such message is on record"},
	codeDeviceNotFound:       {404, "The user has no such device"},
	"product_not_found":      {404, "There is no such product"},
	"key_not_found":          {404, "The product has no such key"},
	"revocation_not_found":   {404, "Nothing of that is revoked"},
	"task_not_found":         {404, "There is no such task"},
	"list_not_found":         {404, "There is no such list"},
	codeMethodNotAllowed:     {405, "The method is not allowed here"},
	"product_exists":         {409, "There is a product of that id"},
	"product_changed":        {409, "The product was changed at the same time"},
	"key_exists":             {409, "There is, or was, a key of that id"},
	"backup_exists":          {409, "The directory exists"},
	codeTaskMove:             {409, "The task's state does not allow it"},
	"too_many_tags":          {409, "A device would have too many tags"},
	codeAudienceTooLarge:     {409, "The audience is too large to be settled at sending"},
	codeRequestTooLarge:      {413, "The body is too large"},
	codeMessageTooLarge:      {413, "The message is too large"},
	codeTooManyTargets:       {413, "The batch names too many users"},
	codeListTooLarge:         {413, "The list has too many users"},
	codeUnsupportedMediaType: {415, "The body is not of a type that is read here"},
	codeIdempotencyKeyReused: {422, "The idempotency key was used for another request"},
	codeTooManyRequests:      {429, "Too many requests"},
	codeTooManyLists:         {429, "The product has too many lists"},
	"too_many_revocations":   {429, "The product has too many revocations"},
	codeInternal:             {500, "The gateway failed"},
	codeNotSupported:         {501, "Not supported here"},
	codeDurability:           {503, "The message cannot be stored durably now"},
	codeStorageFailed:        {503, "The store cannot be used now"},
	"store_full":             {503, "The store is nearly full"},
	codeStorageSlow:          {503, "The store is too slow now"},
	codeRoomsUnavailable:     {503, "Not all rooms can be reached now"},
	codeShuttingDown:         {503, "The gateway is shutting down"},
}

var (
	errUnknownPath      = push.Errorf(push.KindNotFound, string(codeUnknownPath), "")
	errMethodNotAllowed = push.Errorf(push.KindInvalid, string(codeMethodNotAllowed), "see the header Allow")
	errUnauthenticated  = push.Errorf(push.KindUnauthenticated, string(codeUnauthenticated),
		"send Authorization: Bearer with the gateway's secret")
	errUnsupportedMediaType = push.Errorf(push.KindInvalid, string(codeUnsupportedMediaType),
		"send Content-Type: application/json in UTF-8, not encoded otherwise")
	errInternal     = push.Errorf(push.KindInternal, string(codeInternal), "")
	errNotSupported = push.Errorf(push.KindInvalid, string(codeNotSupported), "")
)

// invalid is a request with mistakes in its body.
type invalid struct{ fields []strictjson.FieldError }

func (e *invalid) Error() string {
	s := string(codeInvalidRequest)
	for _, f := range e.fields {
		s += " " + string(f.Code)
	}
	return s
}

// badParameter is a request with a mistake in its path, query or header.
type badParameter struct {
	name   string
	code   strictjson.Code
	detail string
}

func (e *badParameter) Error() string {
	return string(codeInvalidParameter) + " " + e.name + " " + string(e.code)
}

// writeError answers with the problem that err is, in the form that generated code calls.
func (c *Center) writeError(_ http.ResponseWriter, r *http.Request, err error) {
	c.refuse(callOf(r.Context()), err)
}

// refuse answers with the problem that err is.
func (c *Center) refuse(a *call, err error) {
	p := c.problemOf(err)
	if a.status != 0 {
		c.cfg.Log.Debug("center: the answer could not be written", "request", a.id, "route", a.route, "error", err)
		return
	}
	a.code = string(p.Code)
	c.logFailure(a, &p, err, 1)
	h := a.Header()
	if p.RetryAfter != nil {
		h.Set("Retry-After", strconv.Itoa(*p.RetryAfter))
	}
	if p.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="carillon"`)
	}
	b, _ := json.Marshal(p) // strings and numbers: it cannot fail
	h.Set("Content-Type", "application/problem+json")
	a.WriteHeader(p.Status)
	_, _ = a.Write(b) // the client is gone, and nobody is left to be told
}

// logFailure logs an error that is not the sender's. of is how many messages it concerns.
func (c *Center) logFailure(a *call, p *publicapi.Problem, err error, of int) {
	switch {
	case p.Status == http.StatusInternalServerError:
		c.cfg.Log.Error("center: failed", "request", a.id, "route", a.route, "messages", of, "error", err)
	case p.Status > http.StatusInternalServerError && p.Status != http.StatusNotImplemented:
		c.cfg.Log.Warn("center: unavailable", "request", a.id, "route", a.route, "messages", of, "code", p.Code, "error", err)
	}
}

// problemOf translates an error, once, into what the sender is told.
func (c *Center) problemOf(err error) publicapi.Problem {
	var fields *invalid
	if errors.As(err, &fields) {
		return newProblem(codeInvalidRequest, "", fieldErrors(fields.fields), 0)
	}
	if b := parameterOf(err); b != nil {
		f := publicapi.FieldError{Parameter: &b.name, Code: publicapi.FieldErrorCode(b.code)}
		if b.detail != "" {
			f.Detail = &b.detail
		}
		return newProblem(codeInvalidParameter, "", []publicapi.FieldError{f}, 0)
	}
	var form *strictjson.SyntaxError
	if errors.As(err, &form) {
		return newProblem(codeMalformedJSON, form.Error(), nil, 0)
	}
	var e *push.Error
	if !errors.As(err, &e) {
		return newProblem(codeInternal, "", nil, 0)
	}
	code := codeOf(e)
	detail := e.Detail
	if code == codeInternal {
		detail = ""
	}
	return newProblem(code, detail, nil, e.After)
}

// ofStore is what the contract calls errors of stores that have finer names.
var ofStore = map[string]Code{"store_weak": codeDurability, "store_short": codeDurability, "store_busy": codeStorageSlow}

// codeOf returns the error's own code if the contract knows it, otherwise the one that stands for it or for its kind.
func codeOf(e *push.Error) Code {
	if _, known := problems[Code(e.Code)]; known {
		return Code(e.Code)
	}
	if code, known := ofStore[e.Code]; known {
		return code
	}
	switch e.Kind {
	case push.KindInvalid:
		return codeInvalidRequest
	case push.KindUnauthenticated:
		return codeUnauthenticated
	case push.KindKeyReused:
		return codeIdempotencyKeyReused
	case push.KindTooLarge:
		return codeMessageTooLarge
	case push.KindLimited:
		return codeTooManyRequests
	case push.KindUnavailable:
		return codeStorageFailed
	case push.KindClosed:
		return codeShuttingDown
	}
	return codeInternal
}

func newProblem(code Code, detail string, fields []publicapi.FieldError, after time.Duration) publicapi.Problem {
	what := problems[code]
	p := publicapi.Problem{
		Type: "urn:carillon:problem:" + string(code), Title: what.title, Status: what.status, Code: publicapi.ProblemCode(code),
	}
	if detail != "" {
		p.Detail = &detail
	}
	if len(fields) > 0 {
		p.Errors = &fields
	}
	if what.status == http.StatusTooManyRequests || what.status == http.StatusServiceUnavailable {
		seconds := max(1, int(math.Ceil(after.Seconds())))
		p.RetryAfter = &seconds
	}
	return p
}

func fieldErrors(fs []strictjson.FieldError) []publicapi.FieldError {
	out := make([]publicapi.FieldError, len(fs))
	for i, f := range fs {
		out[i] = publicapi.FieldError{Pointer: &f.Pointer, Code: publicapi.FieldErrorCode(f.Code)}
		if f.Detail != "" {
			out[i].Detail = &f.Detail
		}
	}
	return out
}

// parameterOf returns the mistake in a parameter that err is: one of ours, or one that generated code found; nil if it is
// neither.
func parameterOf(err error) *badParameter {
	var own *badParameter
	if errors.As(err, &own) {
		return own
	}
	switch e := err.(type) {
	case *publicapi.InvalidParamFormatError:
		return &badParameter{e.ParamName, strictjson.BadFormat, ""}
	case *adminapi.InvalidParamFormatError:
		return &badParameter{e.ParamName, strictjson.BadFormat, ""}
	case *publicapi.RequiredParamError:
		return &badParameter{e.ParamName, strictjson.Required, ""}
	case *adminapi.RequiredParamError:
		return &badParameter{e.ParamName, strictjson.Required, ""}
	case *publicapi.TooManyValuesForParamError:
		return &badParameter{e.ParamName, strictjson.TooMany, ""}
	case *adminapi.TooManyValuesForParamError:
		return &badParameter{e.ParamName, strictjson.TooMany, ""}
	}
	return nil
}

package web

import (
	"net/http"
	"slices"
	"strings"
)

// The codes of requests that no transport of this kind can carry.
const (
	CodeMethod  = "method_not_allowed"
	CodeVersion = "http_version"    // HTTP/2 and later: the connection is shared, and cannot be taken from net/http
	CodeBody    = "unexpected_body" // what follows the head of a request would be taken for the next one
)

// Check refuses a request whose connection cannot be taken from net/http: of another method, of HTTP/2, or with a body.
func Check(r *http.Request, methods ...string) *Problem {
	if p := checkMethod(r, methods...); p != nil {
		return p
	}
	switch {
	case r.ProtoMajor != 1:
		return &Problem{
			Status: http.StatusHTTPVersionNotSupported, Code: CodeVersion, Detail: "this path needs HTTP/1.1",
		}
	case r.ContentLength != 0:
		return &Problem{Status: http.StatusBadRequest, Code: CodeBody, Detail: "a request for this path has no body"}
	}
	return nil
}

func checkMethod(r *http.Request, methods ...string) *Problem {
	if slices.Contains(methods, r.Method) {
		return nil
	}
	allow := strings.Join(methods, ", ")
	return &Problem{
		Status: http.StatusMethodNotAllowed, Code: CodeMethod, Allow: allow, Detail: "this path takes " + allow,
	}
}

package center

import (
	"net/http"
	"strings"

	"github.com/go-chi/chi/v5"

	"carillon/server/catalog"
	adminapi "carillon/server/center/api/admin"
	publicapi "carillon/server/center/api/public"
)

// operation is what stands around a handler: who may call it and how large its body may be. Tests hold the list against
// the contract.
type operation struct {
	method  string
	pattern string
	scope   catalog.Scope // empty: the admin interface, whose bearer is the gateway's secret
	body    bodySize
	stream  bool // its answer goes on and on: it is not counted with the others
}

// bodySize sorts operations by the body that they take.
type bodySize uint8

const (
	noBody bodySize = iota
	singleBody
	batchBody
	maybeBody // a single one, or none
	listBody  // a list of users, which the handler reads as it comes
)

var publicOperations = []operation{
	{http.MethodPost, "/v1/messages", catalog.ScopeMessagesWrite, singleBody, false},
	{http.MethodPost, "/v1/messages/batch", catalog.ScopeMessagesWrite, batchBody, false},
	{http.MethodGet, "/v1/messages/{id}", catalog.ScopeMessagesRead, noBody, false},
	{http.MethodDelete, "/v1/messages/{id}", catalog.ScopeMessagesWrite, noBody, false},
	{http.MethodGet, "/v1/users/{user}", catalog.ScopeUsersRead, noBody, false},
	{http.MethodDelete, "/v1/users/{user}/devices/{device}", catalog.ScopeUsersWrite, noBody, false},
	{http.MethodGet, "/v1/users/{user}/tags", catalog.ScopeUsersRead, noBody, false},
	{http.MethodPut, "/v1/users/{user}/tags", catalog.ScopeUsersWrite, singleBody, false},
	{http.MethodPatch, "/v1/users/{user}/tags", catalog.ScopeUsersWrite, singleBody, false},
	{http.MethodGet, "/v1/users/{user}/devices/{device}/tags", catalog.ScopeUsersRead, noBody, false},
	{http.MethodPut, "/v1/users/{user}/devices/{device}/tags", catalog.ScopeUsersWrite, singleBody, false},
	{http.MethodPatch, "/v1/users/{user}/devices/{device}/tags", catalog.ScopeUsersWrite, singleBody, false},
	{http.MethodPost, "/v1/tags/batch", catalog.ScopeUsersWrite, batchBody, false},
	{http.MethodPost, "/v1/users/{user}/kick", catalog.ScopeSessionsWrite, singleBody, false},
	{http.MethodPost, "/v1/users/{user}/revoke", catalog.ScopeSessionsWrite, singleBody, false},
	{http.MethodDelete, "/v1/users/{user}/revoke", catalog.ScopeSessionsWrite, noBody, false},
	{http.MethodGet, "/v1/revocations", catalog.ScopeSessionsWrite, noBody, false},
	{http.MethodPost, "/v1/tasks", catalog.ScopeTasksWrite, singleBody, false},
	{http.MethodGet, "/v1/tasks", catalog.ScopeTasksRead, noBody, false},
	{http.MethodGet, "/v1/tasks/{task}", catalog.ScopeTasksRead, noBody, false},
	{http.MethodPatch, "/v1/tasks/{task}", catalog.ScopeTasksWrite, singleBody, false},
	{http.MethodDelete, "/v1/tasks/{task}", catalog.ScopeTasksWrite, noBody, false},
	{method: http.MethodGet, pattern: "/v1/tasks/{task}/events", scope: catalog.ScopeTasksRead, stream: true},
	{http.MethodPost, "/v1/tasks/{task}/clone", catalog.ScopeTasksWrite, noBody, false},
	{http.MethodPost, "/v1/tasks/{task}/approve", catalog.ScopeTasksApprove, maybeBody, false},
	{http.MethodPost, "/v1/tasks/{task}/resume", catalog.ScopeTasksWrite, maybeBody, false},
	{http.MethodPost, "/v1/tasks/{task}/pause", catalog.ScopeTasksWrite, maybeBody, false},
	{http.MethodPost, "/v1/tasks/{task}/stop", catalog.ScopeTasksWrite, maybeBody, false},
	{http.MethodPost, "/v1/tasks/{task}/recall", catalog.ScopeTasksWrite, maybeBody, false},
	{http.MethodGet, "/v1/task-switch", catalog.ScopeTasksRead, noBody, false},
	{http.MethodPut, "/v1/task-switch", catalog.ScopeTasksWrite, singleBody, false},
	{http.MethodPost, "/v1/lists", catalog.ScopeTasksWrite, listBody, false},
	{http.MethodGet, "/v1/lists", catalog.ScopeTasksRead, noBody, false},
	{http.MethodGet, "/v1/lists/{list}", catalog.ScopeTasksRead, noBody, false},
	{http.MethodDelete, "/v1/lists/{list}", catalog.ScopeTasksWrite, noBody, false},
}

var adminOperations = []operation{
	{http.MethodPost, "/admin/v1/products", "", singleBody, false},
	{http.MethodGet, "/admin/v1/products", "", noBody, false},
	{http.MethodGet, "/admin/v1/products/{product}", "", noBody, false},
	{http.MethodPatch, "/admin/v1/products/{product}", "", singleBody, false},
	{http.MethodPost, "/admin/v1/products/{product}/device-keys", "", singleBody, false},
	{http.MethodGet, "/admin/v1/products/{product}/device-keys", "", noBody, false},
	{http.MethodDelete, "/admin/v1/products/{product}/device-keys/{key}", "", noBody, false},
	{http.MethodPost, "/admin/v1/products/{product}/api-keys", "", singleBody, false},
	{http.MethodGet, "/admin/v1/products/{product}/api-keys", "", noBody, false},
	{http.MethodDelete, "/admin/v1/products/{product}/api-keys/{key}", "", noBody, false},
	{http.MethodGet, "/admin/v1/sessions", "", noBody, false},
	{http.MethodPost, "/admin/v1/backup", "", singleBody, false},
	{http.MethodPost, "/admin/v1/drain", "", maybeBody, false},
}

func (c *Center) publicRouter() http.Handler {
	r := c.newRouter()
	strict := publicapi.NewStrictHandlerWithOptions(publicOps{c}, nil, publicapi.StrictHTTPServerOptions{
		RequestErrorHandlerFunc: c.writeError, ResponseErrorHandlerFunc: c.writeError,
	})
	publicapi.HandlerWithOptions(strict, publicapi.ChiServerOptions{
		BaseRouter: endpoints{r, c, publicOperations}, ErrorHandlerFunc: c.writeError,
	})
	return c.outermost(r)
}

func (c *Center) adminRouter() http.Handler {
	r := c.newRouter()
	strict := adminapi.NewStrictHandlerWithOptions(adminOps{c}, nil, adminapi.StrictHTTPServerOptions{
		RequestErrorHandlerFunc: c.writeError, ResponseErrorHandlerFunc: c.writeError,
	})
	adminapi.HandlerWithOptions(strict, adminapi.ChiServerOptions{
		BaseRouter: endpoints{r, c, adminOperations}, ErrorHandlerFunc: c.writeError,
	})
	return c.outermost(r)
}

// The receivers of the generated interfaces, apart from each other and from what Center exports.
type (
	publicOps struct{ *Center }
	adminOps  struct{ *Center }
)

func (c *Center) newRouter() *chi.Mux {
	r := chi.NewRouter()
	r.NotFound(func(w http.ResponseWriter, req *http.Request) {
		c.writeError(w, req, errUnknownPath)
	})
	r.MethodNotAllowed(func(w http.ResponseWriter, req *http.Request) {
		path := req.URL.RawPath
		if path == "" {
			path = req.URL.Path
		}
		var allowed []string
		for _, m := range []string{http.MethodDelete, http.MethodGet, http.MethodPatch, http.MethodPost, http.MethodPut} {
			if r.Match(chi.NewRouteContext(), m, path) {
				allowed = append(allowed, m)
			}
		}
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		c.writeError(w, req, errMethodNotAllowed)
	})
	return r
}

// endpoints is the router that the generated code registers its handlers with. It puts around each what its operation
// needs.
type endpoints struct {
	chi.Router
	c          *Center
	operations []operation
}

func (e endpoints) Group(fn func(chi.Router)) chi.Router { fn(e); return e }

func (e endpoints) Get(p string, h http.HandlerFunc) { e.Router.Get(p, e.wrap(http.MethodGet, p, h)) }
func (e endpoints) Post(p string, h http.HandlerFunc) {
	e.Router.Post(p, e.wrap(http.MethodPost, p, h))
}
func (e endpoints) Put(p string, h http.HandlerFunc) { e.Router.Put(p, e.wrap(http.MethodPut, p, h)) }
func (e endpoints) Patch(p string, h http.HandlerFunc) {
	e.Router.Patch(p, e.wrap(http.MethodPatch, p, h))
}
func (e endpoints) Delete(p string, h http.HandlerFunc) {
	e.Router.Delete(p, e.wrap(http.MethodDelete, p, h))
}

func (e endpoints) wrap(method, pattern string, h http.HandlerFunc) http.HandlerFunc {
	for i := range e.operations {
		if op := &e.operations[i]; op.method == method && op.pattern == pattern {
			return e.c.endpoint(op, h)
		}
	}
	panic("center: the contract has an operation that operations.go does not know: " + method + " " + pattern)
}

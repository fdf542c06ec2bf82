package dns

// Records is all that the cluster's names mean at one moment. It never changes;
// Edit makes another. The nil Records is empty.
type Records struct{}

// NewRecords returns the records of a whole cluster.
func NewRecords(namespaces []string, services []Service, pods []Pod) *Records { return &Records{} }

// Edit starts a change of r that shares with r what stays.
func (r *Records) Edit() *Edit { return &Edit{} }

// Edit collects changes to Records. It is used by one goroutine.
type Edit struct{}

// PutNamespace adds a namespace.
func (e *Edit) PutNamespace(name string) {}

// DeleteNamespace removes a namespace, not the services in it.
func (e *Edit) DeleteNamespace(name string) {}

// PutService adds or replaces a service with its endpoints.
func (e *Edit) PutService(s Service) {}

// DeleteService removes a service.
func (e *Edit) DeleteService(namespace, name string) {}

// PutPod adds or replaces a pod's addresses.
func (e *Edit) PutPod(p Pod) {}

// DeletePod removes a pod's addresses.
func (e *Edit) DeletePod(namespace, name string) {}

// Records returns the changed records. The Edit may go on.
func (e *Edit) Records() *Records { return &Records{} }

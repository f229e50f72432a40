/** The panel beside a customer in the Stripe dashboard. */
import type { ExtensionContextValue } from "@stripe/ui-extension-sdk/context";

import { useApi } from "../exchange";
import { CompanyPanel } from "../panel/CompanyPanel";
import OverviewView from "./OverviewView";

const CustomerView = (context: ExtensionContextValue) => {
  const { api, identity } = useApi(context);
  const customer = context.environment.objectContext?.id;
  if (!customer) return <OverviewView {...context} />;
  return (
    <CompanyPanel
      key={`${identity} ${customer}`}
      api={api}
      customer={customer}
      locale={context.userContext.locale}
    />
  );
};

export default CustomerView;
